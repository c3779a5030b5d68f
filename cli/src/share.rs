//! `muster gateway share`: this gateway gives machines that start their share of the key of their disk.

use control::{
    local::{Answer, Request, ShareKeys},
    text::Bytes,
};
use identity::ShareKey;
use serde_json::json;

use crate::{
    args::{Everywhere, GatewayShare},
    failure::Outcome,
    local::{self, Daemon},
    org_keys,
    output::{self, talk},
    place::Places,
    profile::Admin,
};

/// Runs the command. The key follows from the org keys, which are its backup.
pub(crate) fn run(everywhere: &Everywhere, args: &GatewayShare) -> Outcome<()> {
    let places = Places::find(everywhere)?;
    let mut daemon = Daemon::connect(&places.socket)?;
    let request = match args.epoch {
        None => Request::ForgetShareKeys {},
        Some(epoch) => {
            let path = org_keys::path(everywhere, &args.org_keys)?;
            let profile = Admin::find(everywhere)?.profile;
            let keys = org_keys::unlock(everywhere, &args.org_keys, &path, profile.org())?;
            let key = ShareKey::of(&keys.release, epoch).expose(|key| key.to_vec());
            Request::KeepShareKey { epoch, key: Bytes(key) }
        }
    };
    let Answer::ShareKeys(ShareKeys { epochs, plain }) = daemon.ask(&request)? else {
        return Err(local::unexpected());
    };
    let value = json!({ "epochs": epochs, "plain_file": plain });
    let shown: Vec<String> = epochs.iter().map(u32::to_string).collect();
    output::print(everywhere.format(), value, || match shown.as_slice() {
        [] => "no shares are given here\n".to_owned(),
        shown => format!("gives shares of disk keys, epoch {}\n", shown.join(" and ")),
    });
    if !epochs.is_empty() {
        talk(
            "Do the same on every gateway: a machine takes its share from whichever answers. It needs the \
             [attestation] settings there; see images/README.md.",
        );
    }
    if plain && !epochs.is_empty() {
        talk(
            "The key lies in a plain file, as this machine's other keys do: whoever copies its disk can work out \
             the share of every machine.",
        );
    }
    Ok(())
}
