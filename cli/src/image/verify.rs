//! `muster image verify`: what an image holds, by what is in it and nothing else.

use std::path::Path;

use boot_image::{Archive, LEAVE_PREBOOT, Pcr, Pins, Uki};
use identity::{Code, encode_hex};
use org_trust::{CharterChain, TrustBundle};
use serde_json::json;
use tpm_seal::Approvals;

use super::{approvals, inputs, unusable};
use crate::{
    args::Everywhere,
    failure::{Failure, Outcome},
    invite, output,
};

/// What an image is made of, with everything checked that can be without a machine.
pub(crate) struct Opened {
    uki: Uki,
    pins: Pins,
    chain: CharterChain,
    measured: Pcr,
    pub(crate) approvals: Approvals,
}

impl Opened {
    /// Takes a file apart.
    pub(crate) fn read(file: &Path) -> Outcome<Self> {
        let bytes = inputs::read(file)?;
        let at = |why: &dyn core::fmt::Display| unusable(format_args!("{}: {why}", file.display()));
        let incomplete = |why: &dyn core::fmt::Display| {
            Failure::new(Code::ImageIncomplete, format_args!("{}: {why}", file.display()))
        };
        let uki = Uki::read(&bytes).map_err(|e| at(&e))?;
        let part = |name| uki.part(name).ok_or_else(|| at(&format_args!("no {name} in it")));
        let archive = Archive::unpack(part(".initrd")?).map_err(|e| at(&e))?;
        let pins = Pins::of(&archive).map_err(|e| incomplete(&e))?;
        let chain = CharterChain::read_file(&pins.settings)
            .map_err(|e| incomplete(&format_args!("the org's settings in it do not hold: {e}")))?;
        let measured = Pcr::of_image(&uki);
        let approvals = uki.part(".pcrsig").ok_or_else(|| incomplete(&"no approvals in it"))?;
        let approvals = Approvals::decode(approvals).map_err(|e| incomplete(&e))?;
        approvals::check(&approvals, &pins.image_key, &chain.org(), measured).map_err(|e| incomplete(&e))?;
        Ok(Self { uki, pins, chain, measured, approvals })
    }

    /// Whether firmware with Secure Boot may start it.
    pub(crate) const fn is_signed(&self) -> bool {
        self.uki.is_signed()
    }
}

pub(super) fn run(everywhere: &Everywhere, file: &Path) -> Outcome<()> {
    let opened = Opened::read(file)?;
    let Opened { uki, pins, chain, measured: pcr, .. } = &opened;
    let command_line = String::from_utf8_lossy(uki.part(".cmdline").unwrap_or_default()).into_owned();
    let bundle = TrustBundle::read(pins.bundle.as_bytes()).map_err(|e| Failure::new(e.code(), e))?;
    let invite = pins.invite.as_deref().map(invite::check).transpose()?;
    if invite.as_ref().is_some_and(|invite| invite.org() != chain.org()) {
        return Err(Failure::new(Code::InviteOtherOrg, file.display()));
    }
    let charter = chain.head().charter();
    let (preboot, node) = (pcr.to_string(), pcr.extended(LEAVE_PREBOOT).to_string());
    let cas: Vec<&str> = bundle.certificates().iter().map(|anchor| anchor.subject()).collect();
    let uses = invite.as_ref().map(|invite| invite.invite().uses);
    let parts: serde_json::Map<_, _> =
        uki.parts().map(|(name, content)| (name.to_owned(), json!(content.len()))).collect();
    let value = json!({
        "file": file,
        "org": { "id": chain.org().to_string(), "name": charter.name.as_str(), "settings": charter.version },
        "gateways": pins.gateways,
        "tls_cas": cas,
        "release_key": pins.release.to_string(),
        "image_key": encode_hex(&pins.image_key),
        "approved": ["preboot", "node"],
        "secure_boot": opened.is_signed(),
        "secure_boot_certificate": pins.secure_boot.as_ref().map(|hash| encode_hex(hash)),
        "share": pins.share,
        "without_gateway": pins.without_gateway,
        "built_unix_s": pins.built_unix_s,
        "invite": invite.as_ref().map(|invite| json!({
            "id": invite.id().to_string(),
            "uses": invite.invite().uses,
            "approval": invite.invite().approval,
        })),
        "command_line": command_line,
        "parts": parts,
        "pcr11": { "preboot": preboot, "node": node },
    });
    output::print(everywhere.format(), value, || {
        let invite = match uses {
            None => "none".to_owned(),
            Some(1) => "for one machine".to_owned(),
            Some(uses) => format!("for {uses} machines"),
        };
        let certificate = match &pins.secure_boot {
            None => "none: not for Secure Boot".to_owned(),
            Some(hash) => format!("SHA-256 {}", encode_hex(hash)),
        };
        output::columns(
            ["ORG", charter.name.as_str()],
            &[
                ["org id".into(), chain.org().to_string()],
                ["settings".into(), format!("version {}", charter.version)],
                ["gateways".into(), pins.gateways.join(", ")],
                ["TLS CAs".into(), cas.join(", ")],
                ["release key".into(), pins.release.to_string()],
                ["image key".into(), encode_hex(&pins.image_key).get(..16).unwrap_or_default().to_owned()],
                ["approved".into(), "the preboot phase and the node phase, signatures hold".into()],
                ["certificate".into(), certificate],
                ["invite".into(), invite],
                ["command line".into(), command_line.clone()],
                ["PCR 11".into(), preboot.clone()],
                ["PCR 11 after".into(), node.clone()],
            ],
        )
    });
    Ok(())
}
