//! A second hand at the dialler's proof: every part of what is signed can be chosen, right or wrong.

use conn_auth::Binding;
use identity::{HashContext, Label, OrgId, SecretKey, encode_hex};
use muster_tests::org::ORG;

/// What a proof is made of; the default is an honest one.
pub(crate) struct Craft<'a> {
    pub(crate) key: &'a SecretKey,
    pub(crate) org: OrgId,
    pub(crate) binding: Binding,
    pub(crate) label: Label,
    pub(crate) hello: &'a str,
    pub(crate) challenge: &'a str,
    pub(crate) count: &'a str,
}

impl<'a> Craft<'a> {
    pub(crate) fn honest(key: &'a SecretKey, binding: Binding, hello: &'a str, challenge: &'a str) -> Self {
        let label = Label::CONN_AUTH_CLIENT;
        Self { key, org: ORG, binding, label, hello, challenge, count: "0" }
    }

    /// PROOF, but for its signature.
    pub(crate) fn covered(&self) -> String {
        format!("heads={} count={}", "00".repeat(32), self.count)
    }

    /// PROOF.
    pub(crate) fn proof(&self) -> String {
        let signature = self.key.sign(self.label, &self.transcript());
        format!("{} sig={}", self.covered(), encode_hex(&signature.0))
    }

    fn transcript(&self) -> [u8; 32] {
        let (covered, signature) = self.challenge.split_once(" sig=").unwrap();
        let channel = match self.binding {
            Binding::Tls(exporter) => exporter,
            Binding::WireGuard { client, server } => {
                HashContext::CHANNEL_WIREGUARD.hash(&[&client.0, &server.0])
            }
        };
        let kind = match self.binding {
            Binding::Tls(_) => "tls",
            Binding::WireGuard { .. } => "wg",
        };
        let parts = [
            self.org.as_bytes().as_slice(),
            kind.as_bytes(),
            &channel,
            self.hello.as_bytes(),
            covered.as_bytes(),
        ];
        let t2 = HashContext::CONN_AUTH_T2.hash(&[&parts.map(prefixed).concat()]);
        let server = identity::decode_hex::<64>(signature.as_bytes()).unwrap();
        HashContext::CONN_AUTH_T3.hash(&[&t2, &server, &prefixed(self.covered().as_bytes())])
    }
}

fn prefixed(part: &[u8]) -> Vec<u8> {
    [&u32::try_from(part.len()).unwrap().to_le_bytes()[..], part].concat()
}
