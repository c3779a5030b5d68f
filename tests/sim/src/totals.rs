//! What one run, or all of them, came to.

use serde_json::{Map, Value};

macro_rules! totals {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counts of everything that happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Totals {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// By name.
            #[must_use]
            pub fn to_json(&self) -> Map<String, Value> {
                let mut map = Map::new();
                $(map.insert(stringify!($field).to_owned(), self.$field.into());)*
                map
            }
        }
    };
}

totals! {
    /// Runs.
    seeds,
    /// Machines, those that wanted to join among them.
    machines,
    /// Of them, members that do not play by the rules.
    hostile,
    /// Handshakes whose key was proved.
    handshakes,
    /// Of them refused.
    refused,
    /// Datagrams of SWIM sent.
    datagrams,
    /// Handshakes that ended before a key was proved.
    unproven,
    /// Connections that were dialled.
    dials,
    /// Of them between members, those that came to nothing.
    dials_failed,
    /// Ends of sessions that were opened.
    sessions,
    /// Of them cut with a reason.
    cut,
    /// Messages sent.
    messages,
    /// Segments that were lost or held up, each time.
    lost,
    /// Segments that arrived twice.
    repeated,
    /// Frames of hostile members.
    hostile_frames,
    /// Application packets that passed two gates.
    packets,
    /// Links that were closed because none passed for long.
    quiet_links,
    /// Changes that admins signed.
    statements,
    /// Of them revocations by admins.
    revokes,
    /// Suspensions by admins.
    suspends,
    /// Ends of suspensions.
    resumes,
    /// Names, roles and labels given by admins.
    assigns,
    /// Invites whose machines wait for an admin.
    approvals,
    /// Machines that an admin approved.
    approved,
    /// New settings of the org.
    settings,
    /// Machines that got new keys.
    rotations,
    /// Of them those whose new keys nobody knew of in the end, who is still a member.
    stranded,
    /// Keys of admins and gateways that were stolen.
    thefts,
    /// Machines that were started twice from one disk.
    copies,
    /// Times that a machine saw two of them take turns.
    copies_noticed,
    /// Machines that a change had shut out and that came back by a start through a gateway.
    brought_back,
    /// Changes acknowledged to a program or an admin's device.
    acknowledged,
    /// Changes that took the machine out that they were handed in at, and that others had then.
    parted,
    /// Changes that a machine could tell nobody of.
    unheard,
    /// Machines that asked to leave.
    leaves,
    /// Machines that joined, or got their list anew.
    joined,
    /// Newcomers that were refused for good.
    turned_away,
    /// Starts of a daemon.
    starts,
    /// Crashes.
    crashes,
    /// Writes.
    writes,
    /// Of them refused by the disk.
    writes_refused,
    /// Disks that were full, failed, lied or rotted for a while.
    disk_faults,
    /// Disks that did not read back and were filled by a gateway.
    disks_lost,
    /// Disks that lost what was on them.
    disks_spoiled,
    /// Old copies of a disk put back.
    backups_restored,
    /// Partitions.
    partitions,
    /// Clocks that jumped.
    clock_jumps,
    /// Machines that moved to another address.
    moves,
    /// Runs in which hostile members kept honest ones apart to the end.
    eclipsed,
    /// Records that stood on disks at the end.
    records_on_disk,
    /// Checks of an invariant.
    checks,
    /// Virtual time, in milliseconds.
    virtual_ms,
}
