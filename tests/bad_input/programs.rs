//! The same on the programs that are shipped: a running musterd and gateway under input that is bad by
//! name and by chance, through the tunnel of a member that has turned and through TLS. Nothing of it is let
//! in, the member list stays as it was, and what the processes hold comes back to what they held.
//!
//! They must have been built: `cargo build -p muster -p musterd -p muster-gateway -p muster-preboot`.

mod crowd;
mod front;
mod hold;
mod invite;
mod member;
mod sync;

use std::collections::BTreeSet;

use lab::org::Org;

/// Who is a member and how it stands, on the first machine; and every invite with its uses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Believed {
    members: BTreeSet<String>,
    invites: BTreeSet<String>,
}

impl Believed {
    pub(crate) fn of(org: &Org) -> Self {
        let list = org.ask(0, &["member", "list", "--all"]).unwrap();
        let members = list["members"].as_array().unwrap().iter();
        let members = members.map(|m| format!("{} {} {}", m["name"], m["key"], m["state"])).collect();
        let invites = crate::harness::invites(org, 0);
        let invites = invites.iter().map(|i| format!("{} {}", i["id"], i["used"])).collect();
        Self { members, invites }
    }
}

/// A runtime in the thread that it is asked in, which may live in a machine's network.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
