//! A CA that the org has retired: whatever a gateway shows of it, and whatever a pinned bundle still holds.

use std::fs;

use control::{
    local::{Answer, Request},
    text::Bytes,
};
use identity::SecretKey;
use org_trust::{CaState, CharterChain, Record, Records, TlsCa, UnverifiedCharter};
use serde_json::Value;

use super::{
    Bench,
    pki::{Authority, GOOD, pem},
    row,
};
use crate::harness;

#[test]
fn what_shows_a_retired_ca_is_refused_by_every_program_and_one_reference_says_so()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut bench = Bench::new(sandbox, &[]);
        let host = bench.host();
        let host = host.as_str();
        let (old, new) = (Authority::root("old"), Authority::root("new"));
        let (old_leaf, new_leaf) = (old.leaf(host, GOOD), new.leaf(host, GOOD));
        let (o, n) = (&old.certificate, &new.certificate);
        // The wrong way round: the old CA once more, under the one in force.
        let (cross, revived) = (new.cross_signed_by(&old), old.cross_signed_by(&new));

        let ok = ["", "", ""];
        let gone = ["MU-7025", "MU-7025", "CertificateRevoked"];
        // What each would do without the settings, so that it is they that do it.
        let before = [
            row("T1-", "old l o, both trusted", &old_leaf, &[o], &[o, n], ok),
            row("T2-", "old l, old by new", &old_leaf, &[&revived], &[n], ok),
            row("T3-", "new l, new by old, o", &new_leaf, &[&cross, o], &[o, n], ok),
            row("T5-", "old l, both trusted", &old_leaf, &[], &[o, n], ok),
        ];
        let after = [
            row("T1", "old l o, both trusted", &old_leaf, &[o], &[o, n], gone),
            row("T2", "old l, old by new", &old_leaf, &[&revived], &[n], gone),
            // Shown is shown, needed or not.
            row("T3", "new l, new by old, o", &new_leaf, &[&cross, o], &[o, n], gone),
            // The right way round goes on.
            row("T4", "new l, new by old", &new_leaf, &[&cross], &[o, n], ok),
            // No retired key is shown: a chain that ends nowhere, and the diagnosis knows where it would have.
            row("T5", "old l, both trusted", &old_leaf, &[], &[o, n], ["MU-5005", "MU-7025", "UnknownCA"]),
        ];
        let mut table = String::new();
        for row in &before {
            table.push_str(&bench.holds(row));
        }
        bench.retire(&old, &pem(&[o, n]));
        for row in &after {
            table.push_str(&bench.holds(row));
        }
        println!("{table}");
    })
}

impl Bench {
    /// New settings in which this CA is retired, signed with the org's own key: no command retires one. They
    /// travel as any others do, while the gateway shows what those who dial it still trust.
    fn retire(&self, ca: &Authority, trusted: &str) {
        let keys = self.org.host(0).unwrap().dir().join("operator/muster/demo/org-keys.age");
        let keys = harness::key_file(&keys);
        let root = keys.lines().find_map(|line| line.strip_prefix("root ")).unwrap();
        let root = SecretKey::from_seed(&identity::decode_hex(root.as_bytes()).unwrap());
        let pinned = self.org.state(1).unwrap().join("preboot/charters");
        let chain = CharterChain::read_file(&fs::read(&pinned).unwrap()).unwrap();
        let mut next = chain.head().charter().successor();
        next.tls_cas.push(TlsCa { state: CaState::Retired, certificate: ca.certificate.der().to_vec() });
        let signed = UnverifiedCharter::sign(next, &[&root]).unwrap();
        let records = Records::encode(&[Record::Charter(signed.to_bytes())]).unwrap();
        let answer = harness::control(&self.org, 0, &Request::Submit { records: vec![Bytes(records)] });
        assert!(matches!(answer, Answer::Submitted(_)), "{answer:?}");
        // A machine that starts learns of it while it still trusts what it is shown, and an admin who signs.
        assert_eq!(self.preboot(trusted), "");
        self.org.ask(0, &["invite", "create"]).unwrap();
        let chain = CharterChain::read_file(&fs::read(&pinned).unwrap()).unwrap();
        assert_eq!(chain.head().id(), signed.id());
        let profile = self.org.host(0).unwrap().dir().join("operator/muster/demo/org.json");
        let profile: Value = serde_json::from_slice(&fs::read(profile).unwrap()).unwrap();
        assert_eq!(profile["settings"].as_array().map(Vec::len), Some(2));
    }
}
