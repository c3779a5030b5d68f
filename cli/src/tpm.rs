//! `muster tpm`: what keeps this machine's keys closed, or would with another image. Opens none of them.

use std::path::Path;

use identity::{Code, encode_hex};
use serde_json::{Value, json};
use tpm_seal::{
    Approvals, BootSecrets, Custody, CustodyError, NextBoot, NodeSecrets, Obstacle, Phase, Policy, Registers,
    SealedBlob, Secrets, Tpm, TpmError,
};

use crate::{
    args::{Everywhere, KeyStorage},
    failure::{Failure, Outcome},
    image::Opened,
    keys,
    output::{self, talk},
    place::Places,
};

/// One sealed object and what is to be said of it.
pub(crate) struct Object {
    /// Its file's name without the ending.
    pub(crate) name: &'static str,
    phase: Phase,
    blob: Option<SealedBlob>,
    pub(crate) finding: Finding,
}

/// Whether an object opens.
pub(crate) enum Finding {
    /// Now.
    Opens,
    /// In the other phase of the image that runs, as it should be.
    InItsPhase,
    /// It is not there.
    Missing,
    /// Not at all.
    Closed(Failure),
}

/// What a look at the machine shows.
pub(crate) struct Seen {
    tpm: Tpm,
    software: bool,
    locked: bool,
    pub(crate) registers: Registers,
    pub(crate) approvals: Option<Approvals>,
    pub(crate) objects: Vec<Object>,
}

/// `tpm status`.
pub(crate) fn status(everywhere: &Everywhere) -> Outcome<u8> {
    let places = Places::find(everywhere)?;
    let seen = look(&places)?;
    output::print(everywhere.format(), seen.value(), || seen.screen());
    let failures = seen.objects.iter().filter_map(|object| match &object.finding {
        Finding::Closed(failure) => Some(failure),
        Finding::Opens | Finding::InItsPhase | Finding::Missing => None,
    });
    let mut status = 0;
    for failure in failures {
        talk(failure.text().trim_end());
        status = failure.code().exit_status();
    }
    Ok(status)
}

/// `tpm plan`.
pub(crate) fn plan(everywhere: &Everywhere, file: &Path) -> Outcome<u8> {
    let places = Places::find(everywhere)?;
    let seen = look(&places)?;
    let planned = Opened::read(file)?;
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    let mut status = 0;
    for object in seen.objects.iter().filter(|object| object.blob.is_some()) {
        let obstacle = object.blob.as_ref().and_then(|blob| match blob.policy() {
            Policy::Unseal => None,
            Policy::Image(policy) => {
                let image = planned.approvals.of(object.phase).image;
                let then = Registers { firmware: seen.registers.firmware, image, beside: [0; 32] };
                policy.obstacle(Some(&planned.approvals), &then)
            }
        });
        let failure = match (&object.finding, obstacle) {
            // Neither passes by another image.
            (Finding::Closed(failure), _) if !is_of_the_boot(failure.code()) => {
                Some(Failure::new(failure.code(), failure.seen()))
            }
            (_, Some(obstacle)) => Some(keys::tpm_failed(TpmError::Closed(obstacle))),
            (_, None) => None,
        };
        let answer = failure.as_ref().map_or_else(|| "opens".to_owned(), |failure| failure.seen().to_owned());
        rows.push([object.name.to_owned(), answer.clone()]);
        objects.push(json!({
            "object": object.name,
            "opens": failure.is_none(),
            "code": failure.as_ref().map(|failure| failure.code().to_string()),
            "detail": answer,
        }));
        status = failure.map_or(status, |failure| failure.code().exit_status());
    }
    let value = json!({
        "file": file,
        "opens": status == 0,
        "secure_boot": planned.is_signed(),
        "pcr11": encode_hex(&planned.approvals.preboot.image),
        "objects": objects,
    });
    output::print(everywhere.format(), value, || output::columns(["OBJECT", "WITH THIS IMAGE"], &rows));
    if !planned.is_signed() {
        talk("The image is not signed for Secure Boot: firmware that insists on it does not start it.");
    }
    Ok(status)
}

/// Looks at the TPM and at the sealed files.
pub(crate) fn look(places: &Places) -> Outcome<Seen> {
    let directory = places.state.join("keys");
    let in_files = Custody::File.path::<NodeSecrets>(&directory).exists();
    if in_files || places.storage == Some(KeyStorage::File) {
        let detail = "this machine's keys are kept in a file, and no TPM has to do with them";
        return Err(
            Failure::new(Code::KeyFileNotAllowed, detail).remedy("Nothing; `muster status` shows it.")
        );
    }
    let tpm = Tpm::open(&places.tpm).map_err(keys::tpm_failed)?;
    let registers = tpm.registers().map_err(keys::tpm_failed)?;
    let (approvals, unreadable) = match Approvals::kept(&directory) {
        Ok(approvals) => (approvals, None),
        Err(error) => (None, Some(keys::failed(error))),
    };
    let mut objects = vec![
        object::<NodeSecrets>(&tpm, &directory, approvals.as_ref(), &registers),
        object::<BootSecrets>(&tpm, &directory, approvals.as_ref(), &registers),
    ];
    let renewed = object::<NextBoot>(&tpm, &directory, approvals.as_ref(), &registers);
    if !matches!(renewed.finding, Finding::Missing) {
        objects.push(renewed);
    }
    if let Some(unreadable) = unreadable {
        talk(unreadable.text().trim_end());
    }
    Ok(Seen {
        software: tpm.is_software(),
        locked: tpm.is_locked_out().map_err(keys::tpm_failed)?,
        tpm,
        registers,
        approvals,
        objects,
    })
}

fn object<S: Secrets>(
    tpm: &Tpm,
    directory: &Path,
    approvals: Option<&Approvals>,
    registers: &Registers,
) -> Object {
    let read = Custody::sealed_object::<S>(directory);
    let finding = match &read {
        Err(_) | Ok(None) => Finding::Missing,
        Ok(Some(blob)) => match tpm.check(blob) {
            Err(error) => Finding::Closed(named(S::NAME, keys::tpm_failed(error))),
            Ok(()) => judge(S::NAME, blob, approvals, registers),
        },
    };
    match read {
        Ok(blob) => Object { name: S::NAME, phase: S::PHASE, blob, finding },
        Err(error) => Object { name: S::NAME, phase: S::PHASE, blob: None, finding: unread::<S>(error) },
    }
}

fn unread<S: Secrets>(error: CustodyError) -> Finding {
    Finding::Closed(named(S::NAME, keys::failed(error)))
}

/// Of an object that the TPM takes for whole.
fn judge(name: &str, blob: &SealedBlob, approvals: Option<&Approvals>, registers: &Registers) -> Finding {
    let Policy::Image(policy) = blob.policy() else { return Finding::Opens };
    let Some(obstacle) = policy.obstacle(approvals, registers) else { return Finding::Opens };
    let other_phase = approvals.is_some_and(|approvals| {
        [&approvals.preboot, &approvals.node].iter().any(|approval| approval.image == registers.image)
    });
    if other_phase && matches!(obstacle, Obstacle::Image { .. }) {
        return Finding::InItsPhase;
    }
    Finding::Closed(named(name, keys::tpm_failed(TpmError::Closed(obstacle))))
}

fn named(name: &str, failure: Failure) -> Failure {
    Failure::new(failure.code(), format_args!("{name}: {}", failure.seen())).remedy(failure.what_to_do())
}

/// What another start may change.
const fn is_of_the_boot(code: Code) -> bool {
    matches!(code, Code::FirmwareChanged | Code::ImageNotApproved | Code::AddedToImage | Code::OtherImageKey)
}

impl Seen {
    fn value(&self) -> Value {
        let objects = self.objects.iter().map(|object| {
            let failure = match &object.finding {
                Finding::Closed(failure) => Some(failure),
                Finding::Opens | Finding::InItsPhase | Finding::Missing => None,
            };
            json!({
                "object": object.name,
                "policy": policy_word(object),
                "phase": phase_word(object.phase),
                "state": object.finding.word(),
                "sealed_pcr7": object.bound().map(|policy| encode_hex(&policy.firmware)),
                "approved_pcr11": self.approved(object).map(|approved| encode_hex(&approved)),
                "code": failure.map(|failure| failure.code().to_string()),
                "detail": failure.map(Failure::seen),
            })
        });
        json!({
            "device": self.tpm.device(),
            "software": self.software,
            "locked": self.locked,
            "pcr7": encode_hex(&self.registers.firmware),
            "pcr11": encode_hex(&self.registers.image),
            "pcr12": encode_hex(&self.registers.beside),
            "runs": self.runs(),
            "objects": objects.collect::<Vec<_>>(),
        })
    }

    fn screen(&self) -> String {
        let short = |value: &[u8; 32]| encode_hex(&value[..8]);
        let kind = if self.software { "made of software" } else { "a device" };
        let locked = if self.locked { ", locked by wrong guesses (these keys open even so)" } else { "" };
        let firmware = self.objects.iter().find_map(|object| object.bound().map(|policy| policy.firmware));
        let pcr7 = match firmware {
            None => "nothing is sealed to it".to_owned(),
            Some(sealed) if sealed == self.registers.firmware => "as sealed".to_owned(),
            Some(sealed) => format!("differs: sealed to {}", short(&sealed)),
        };
        let beside = self.registers.beside == [0; 32];
        let pcr12 = if beside { "zero, as it must be" } else { "differs: something was added to the image" };
        let mut rows = vec![
            ["TPM".to_owned(), format!("{}, {kind}{locked}", self.tpm.device().display())],
            ["PCR 7".to_owned(), format!("{}  {pcr7}", short(&self.registers.firmware))],
            ["PCR 11".to_owned(), format!("{}  {}", short(&self.registers.image), self.runs())],
            ["PCR 12".to_owned(), format!("{}  {pcr12}", short(&self.registers.beside))],
        ];
        for object in &self.objects {
            let state = match &object.finding {
                Finding::Opens => "opens".to_owned(),
                Finding::InItsPhase => {
                    format!("opens in the {} phase only, as it should", phase_word(object.phase))
                }
                Finding::Missing => "is not there".to_owned(),
                Finding::Closed(failure) => format!("{} {}", failure.code(), failure.code().title()),
            };
            rows.push([format!("{} keys", object.name), format!("{}; {state}", policy_text(object))]);
        }
        output::columns(["KEYS", "AND WHAT THEY ARE SEALED TO"], &rows)
    }

    /// What register 11 says about what runs.
    fn runs(&self) -> &'static str {
        match &self.approvals {
            None => "no image of an org has left its approvals here",
            Some(approvals) if approvals.preboot.image == self.registers.image => {
                "the image, in its preboot phase"
            }
            Some(approvals) if approvals.node.image == self.registers.image => "the image, in its node phase",
            Some(_) => "differs: another system, or a changed image",
        }
    }

    fn approved(&self, object: &Object) -> Option<[u8; 32]> {
        let policy = object.bound()?;
        policy.approval(self.approvals.as_ref()).ok().map(|approval| approval.image)
    }
}

impl Object {
    fn bound(&self) -> Option<&tpm_seal::ImagePolicy> {
        match self.blob.as_ref()?.policy() {
            Policy::Unseal => None,
            Policy::Image(policy) => Some(policy),
        }
    }
}

impl Finding {
    const fn word(&self) -> &'static str {
        match self {
            Self::Opens => "opens",
            Self::InItsPhase => "opens-in-its-phase",
            Self::Missing => "missing",
            Self::Closed(_) => "closed",
        }
    }
}

fn policy_word(object: &Object) -> Option<&'static str> {
    object.blob.as_ref().map(|blob| match blob.policy() {
        Policy::Unseal => "this-tpm",
        Policy::Image(_) => "approved-images",
    })
}

fn policy_text(object: &Object) -> &'static str {
    match object.blob.as_ref().map(SealedBlob::policy) {
        None => "not sealed here",
        Some(Policy::Unseal) => "to this TPM, for any system",
        Some(Policy::Image(_)) => "to this TPM, for approved images",
    }
}

const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Preboot => "preboot",
        Phase::Node => "node",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use boot_image::{ImageSecretKey, LEAVE_PREBOOT, Pcr};
    use tpm_seal::{Approval, ImageKey, Seed};

    use super::*;
    use crate::recover;

    fn approvals(key: u8, image: &[u8]) -> Approvals {
        let key = ImageSecretKey::from_bytes(&[key; 32]).unwrap();
        let approval = |phase, image: Pcr| {
            let unsigned = Approval { phase: [phase; 32], image: *image.as_bytes(), signature: [0; 64] };
            Approval { signature: key.sign(&unsigned.message()), ..unsigned }
        };
        let measured = Pcr::ZERO.extended(image);
        Approvals {
            key: ImageKey(key.public()),
            preboot: approval(1, measured),
            node: approval(2, measured.extended(LEAVE_PREBOOT)),
        }
    }

    fn words(places: &Places) -> Vec<&'static str> {
        look(places)
            .unwrap_or_else(|e| panic!("{}", e.text()))
            .objects
            .iter()
            .map(|o| o.finding.word())
            .collect()
    }

    /// The code of what keeps the keys closed, and what recovery says of it.
    fn closed(places: &Places) -> (Code, Code) {
        let objects = look(places).unwrap_or_else(|e| panic!("{}", e.text())).objects;
        let mut codes = objects.iter().filter_map(|object| match &object.finding {
            Finding::Closed(failure) => Some(failure.code()),
            Finding::Opens | Finding::InItsPhase | Finding::Missing => None,
        });
        let code = codes.next().unwrap();
        (code, recover::lost(places).unwrap_or_else(|refused| refused).code())
    }

    #[test]
    fn what_keeps_keys_closed_is_told_without_opening_any_and_only_a_loss_is_recovered_from() {
        let dir = tempfile::tempdir().unwrap();
        let mut swtpm = lab::Swtpm::start(&dir.path().join("one")).unwrap_or_else(|e| panic!("{e}"));
        let other = lab::Swtpm::start(&dir.path().join("other")).unwrap_or_else(|e| panic!("{e}"));
        let keys = dir.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let places = |tpm: &Path| Places {
            state: dir.path().to_owned(),
            socket: PathBuf::new(),
            storage: None,
            tpm: tpm.to_owned(),
            gateway_socket: None,
            configured: false,
        };
        let mine = places(swtpm.device());
        let tpm = Tpm::open(swtpm.device()).unwrap();
        assert_eq!(words(&mine), ["missing", "missing"]);
        let node =
            NodeSecrets { identity: Seed::new(&[1; 32]), wireguard: Seed::new(&[2; 32]), gateway: None };
        let boot = BootSecrets {
            preboot_secret: Seed::new(&[7; 32]),
            boot: Seed::new(&[8; 32]),
            anchor: [9; 32],
            floor: 0,
        };
        // Without an image: any system opens them.
        let unbound = Custody::Tpm(tpm.clone());
        unbound.store(&keys, &node).unwrap();
        unbound.store(&keys, &boot).unwrap();
        assert_eq!(words(&mine), ["opens", "opens"]);
        assert_eq!(recover::lost(&mine).unwrap_err().code(), Code::KeysInOrder);

        let image = approvals(6, b"image");
        image.keep(&keys).unwrap();
        let bound = Custody::sealed(tpm.clone(), &keys).unwrap();
        tpm.extend(11, b"image").unwrap();
        bound.store(&keys, &node).unwrap();
        bound.store(&keys, &boot).unwrap();
        assert_eq!(words(&mine), ["opens-in-its-phase", "opens"]);
        tpm.extend(11, LEAVE_PREBOOT).unwrap();
        assert_eq!(words(&mine), ["opens", "opens-in-its-phase"]);
        assert_eq!(recover::lost(&mine).unwrap_err().code(), Code::KeysInOrder);
        let seen = look(&mine).unwrap_or_else(|e| panic!("{}", e.text()));
        assert_eq!(seen.value()["runs"], "the image, in its node phase");
        assert!(seen.screen().contains("as sealed"), "{}", seen.screen());

        // Another start mends the first two, and the third if the firmware is set back.
        tpm.extend(11, b"something else").unwrap();
        assert_eq!(closed(&mine), (Code::ImageNotApproved, Code::ImageNotApproved));
        tpm.extend(12, b"init=/bin/sh").unwrap();
        assert_eq!(closed(&mine), (Code::AddedToImage, Code::AddedToImage));
        tpm.extend(7, b"another certificate").unwrap();
        assert_eq!(closed(&mine), (Code::FirmwareChanged, Code::FirmwareChanged));
        assert!(recover::lost(&mine).is_ok(), "whoever asks says that it stays");
        let screen = look(&mine).unwrap_or_else(|e| panic!("{}", e.text())).screen();
        assert!(screen.contains("differs: sealed to") && screen.contains("something was added"), "{screen}");
        swtpm.power_cycle().unwrap();
        tpm.extend(11, b"image").unwrap();
        approvals(7, b"image").keep(&keys).unwrap();
        assert_eq!(closed(&mine), (Code::OtherImageKey, Code::OtherImageKey));
        image.keep(&keys).unwrap();
        assert_eq!(closed(&places(other.device())), (Code::TpmReplaced, Code::TpmReplaced));
        let mut bytes = std::fs::read(keys.join("boot.sealed")).unwrap();
        bytes[200] ^= 1;
        std::fs::write(keys.join("boot.sealed"), bytes).unwrap();
        assert_eq!(closed(&mine), (Code::KeyFileMalformed, Code::KeyFileMalformed));
        assert_eq!(look(&places(Path::new("/dev/tpmrm999"))).err().map(|e| e.code()), Some(Code::TpmAbsent));
    }
}
