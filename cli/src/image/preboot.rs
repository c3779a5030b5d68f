//! `muster image preboot`: kernel, initramfs and everything pinned, as one file that firmware starts.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use boot_image::{Archive, LEAVE_PREBOOT, Pcr, Pins, Uki};
use identity::{Code, encode_hex};
use org_trust::{CharterChain, CheckedInvite, Record, Records, TrustBundle};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use transport::{Address, ClientTls, client};

use super::{
    approvals,
    inputs::{self, Kernel},
    tools::{self, Scratch},
    unusable,
};
use crate::{
    args::{Everywhere, ImagePreboot},
    failure::{Failure, Outcome},
    files, invite, org_keys, output,
    profile::Profile,
    program,
    progress::Progress,
};

pub(super) fn run(everywhere: &Everywhere, args: &ImagePreboot) -> Outcome<()> {
    let (profile, path) = super::org(everywhere, args.org.as_deref(), &args.org_keys)?;
    let (keys, image_key) = org_keys::unlock_image_key(everywhere, &args.org_keys, &path, profile.org())?;
    let bundle = TrustBundle::read(profile.bundle.as_bytes()).map_err(bundle_invalid)?;
    let bundle = TrustBundle::accepted(Some(&bundle), profile.charter()).map_err(bundle_invalid)?;
    let invite = match &args.invite {
        Some(path) => Some(checked_invite(path, &profile, args.bearer)?),
        None => None,
    };
    let mut chain = profile.chain.clone();
    let progress = Progress::steps(everywhere, 4);
    progress.step("asking the gateways");
    if !args.offline {
        ask_gateways(&profile.gateways, &bundle, &mut chain)?;
    }
    let pins = Pins {
        settings: Records::batches(chain.iter().map(Record::from), usize::MAX).flatten().collect(),
        bundle: bundle.to_pem(),
        gateways: profile.gateways.clone(),
        release: keys.release.public(),
        image_key: image_key.public(),
        secure_boot: args.secure_boot_cert.as_deref().map(fingerprint).transpose()?,
        recovery: identity::recovery_key(&keys.release).public(),
        share: args.share,
        without_gateway: args.without_gateway,
        built_unix_s: time(),
        invite: invite.map(|(line, _)| line),
    };

    progress.step("collecting the kernel's modules and programs");
    let scratch = Scratch::beside(&args.out)?;
    let kernel = Kernel::find(args.made_of.kernel.as_deref(), args.made_of.modules.as_deref())?;
    let mut archive = Archive::default();
    let from = program::directory(args.made_of.programs.as_deref())?.join("muster-preboot");
    inputs::program(&mut archive, "init", &from, &scratch)?;
    let mut as_well: &[&str] = &[];
    if args.persist {
        for (path, from) in [("sbin/cryptsetup", "/usr/sbin/cryptsetup"), ("sbin/mke2fs", "/usr/sbin/mke2fs")]
        {
            inputs::program(&mut archive, path, Path::new(from), &scratch)?;
        }
        as_well = &["dm_crypt", "xts", "aesni_intel"];
    }
    kernel.put_modules(&mut archive, as_well, &args.made_of.module)?;
    pins.put(&mut archive);

    progress.step("packing");
    let mut uki = Uki::new(&inputs::read(&args.made_of.stub)?).map_err(unusable)?;
    for (name, content) in [
        (".osrel", os_release(&profile).into_bytes()),
        (".cmdline", COMMAND_LINE.as_bytes().to_vec()),
        (".initrd", archive.pack().map_err(unusable)?),
        (".linux", inputs::read(&kernel.image)?),
    ] {
        uki.add(name, content).map_err(unusable)?;
    }
    progress.step("signing");
    // Not measured: it is about the measurement.
    let approvals = approvals::sign(&image_key, &profile.org(), Pcr::of_image(&uki));
    uki.add(".pcrsig", approvals.encode()).map_err(unusable)?;
    let mut file = uki.assemble().map_err(unusable)?;
    let signed = match (&args.secure_boot_key, &args.secure_boot_cert) {
        (Some(key), Some(certificate)) => {
            file = sign(&file, key, certificate, &scratch)?;
            true
        }
        _ => false,
    };
    files::replace(&args.out, files::SECRET, &file)?;

    drop(progress);
    let pcr = Pcr::of_image(&uki);
    let value = json!({
        "file": args.out,
        "bytes": file.len(),
        "org": profile.org().to_string(),
        "kernel": kernel.release,
        "secure_boot": signed,
        "image_key": encode_hex(&image_key.public()),
        "pcr11": { "preboot": pcr.to_string(), "node": pcr.extended(LEAVE_PREBOOT).to_string() },
    });
    output::print(everywhere.format(), value, || {
        output::columns(
            ["IMAGE", &args.out.display().to_string()],
            &[
                ["size".into(), format!("{} bytes", file.len())],
                ["kernel".into(), kernel.release.clone()],
                ["PCR 11".into(), pcr.to_string()],
                ["Secure Boot".into(), if signed { "signed" } else { "not signed" }.into()],
            ],
        )
    });
    if !signed {
        output::talk(
            "Not signed for Secure Boot: whoever has the machine can start something else on it, and every \
             member is shown that its keys are not bound to what was booted.",
        );
    }
    Ok(())
}

/// An invite in an image lets in whoever gets hold of the image.
fn checked_invite(path: &Path, profile: &Profile, bearer: bool) -> Outcome<(String, CheckedInvite)> {
    let text = invite::read(&path.display().to_string())?;
    let checked = invite::check(&text)?;
    if checked.org() != profile.org() {
        return Err(Failure::new(Code::InviteOtherOrg, path.display()));
    }
    let limited = checked.invite().approval || !checked.invite().tpms.is_empty();
    let open = checked.invite().uses > 1 && !limited;
    if open && !bearer {
        let uses = checked.invite().uses;
        return Err(Failure::new(Code::InviteTooOpen, format_args!("{uses} machines, without approval")));
    }
    Ok((text.trim().to_owned(), checked))
}

/// What a machine will do first, done here: a gateway that it will not accept is better found now. `chain`
/// is then the newest that a gateway has.
fn ask_gateways(gateways: &[String], bundle: &TrustBundle, chain: &mut CharterChain) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(Code::FileProblem, e))?;
    let tls = ClientTls::trusting(bundle).map_err(|why| Failure::new(why.code(), why))?;
    for text in gateways {
        let address = Address::parse(text)
            .map_err(|e| Failure::new(Code::ConfigBadValue, format_args!("gateway {text:?}: {e}")))?;
        let asked = runtime.block_on(async {
            let until = Instant::now() + PATIENCE;
            let stream = client::connect(&address, until).await?;
            let way = client::reach(&address, stream, until).await?;
            let (mut stream, _) = client::secure(&tls, address.host(), way, until).await?;
            client::walk(&mut stream, &address, chain, until).await
        });
        asked.map_err(|why: client::DialError| {
            Failure::new(why.code(), format_args!("{text}: {why}")).remedy(
                "A machine that starts this image would not get past it. --offline makes the image even so.",
            )
        })?;
    }
    Ok(())
}

fn sign(file: &[u8], key: &Path, certificate: &Path, scratch: &Scratch) -> Outcome<Vec<u8>> {
    let (from, to) = (scratch.path().join("unsigned.efi"), scratch.path().join("signed.efi"));
    fs::write(&from, file).map_err(|e| Failure::file(&from, &e))?;
    let arguments =
        [Path::new("--key"), key, Path::new("--cert"), certificate, Path::new("--output"), &to, &from];
    tools::run("sbsign", "sbsigntool", arguments)?;
    inputs::read(&to)
}

/// By which a machine knows the certificate in its firmware.
fn fingerprint(certificate: &Path) -> Outcome<[u8; 32]> {
    let pem = inputs::read(certificate)?;
    let der = CertificateDer::from_pem_slice(&pem)
        .map_err(|why| unusable(format_args!("{}: {why}", certificate.display())))?;
    Ok(Sha256::digest(&der).into())
}

fn os_release(profile: &Profile) -> String {
    format!(
        "ID=muster-preboot\nNAME=\"muster preboot\"\nVERSION_ID={}\nPRETTY_NAME=\"muster preboot of {}\"\n",
        env!("CARGO_PKG_VERSION"),
        profile.charter().name
    )
}

/// As reproducible builds have it, so that the same inputs give the same image.
fn time() -> u64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn bundle_invalid(why: org_trust::BundleError) -> Failure {
    Failure::new(why.code(), why)
}

/// For the kernel; muster-preboot reads none of it. A panic starts the machine anew after half a minute.
const COMMAND_LINE: &str = "console=tty0 console=ttyS0,115200 quiet panic=30";
const PATIENCE: Duration = Duration::from_secs(15);
