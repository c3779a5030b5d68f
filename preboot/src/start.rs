//! The two starts: the first, which ends with an admission, and the returning one, which each ends in.

use std::{path::Path, time::Duration};

use identity::{
    Code, Name,
    limits::{BUNDLE_BYTES_MAX, MANIFEST_BYTES_MAX},
};
use org_trust::{
    Assurance, CharterChain, CheckedInvite, EnrolRequest, InviteManifest, Redemption, Statement, TrustBundle,
};
use tokio::time::sleep;
use transport::Address;
use zeroize::Zeroizing;

use crate::{
    attestation::Speaker,
    console::Console,
    failure::{Failure, Outcome},
    files,
    gateway::{self, Asked},
    keys::{Binding, Boot, KeyStore, Node},
    pinned::{Pinned, admit_of, is_key_of},
    settings::{Arguments, Settings},
};

/// What an image pins, which stands above what an invite or a disk says.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) chain: CharterChain,
    pub(crate) gateways: Vec<String>,
    pub(crate) binding: Binding,
}

/// A machine that is a member, and has just been told so.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) member: Pinned,
    pub(crate) boot: Boot,
    pub(crate) store: KeyStore,
}

/// Everything, from nothing or from whatever an earlier start left.
pub(crate) async fn start(
    arguments: &Arguments,
    image: Option<Image>,
    console: &mut Console,
) -> Outcome<Started> {
    let settings = Settings::of(arguments)?;
    let state = settings.state.as_path();
    files::create_directory(state)?;
    let mut pinned = Pinned::load(state)?;
    if let (Some(pinned), Some(image)) = (&mut pinned, &image) {
        pinned.join(image)?;
    }
    console.checkpoint(format_args!("state in {}", state.display()));
    let invite = read_invite(arguments.invite.as_deref(), pinned.as_ref(), console)?;
    let mut member = match pinned.take() {
        Some(pinned) => pinned,
        None => first(arguments, &settings, invite.as_ref(), image.as_ref(), console)?,
    };
    let store = KeyStore::open(state, &settings.storage, image.as_ref().map(|image| &image.binding))?;
    let (mut boot, admit) = match member.admit.take() {
        Some(admit) => {
            let boot = store.boot()?;
            console.checkpoint("keys open");
            match store.settle_node() {
                Ok(false) => {}
                Ok(true) => console.note("the node's keys are bound to this org's images from now on"),
                // musterd names it, on a machine that can be asked.
                Err(failure) => console.note(format_args!("the node's keys: {failure}")),
            }
            (boot, admit)
        }
        None => {
            let invite = invite.ok_or_else(needs_invite)?;
            enrol(arguments, &settings, &store, &mut member, &invite, console).await?
        }
    };
    member.admit = Some(admit);
    returning(arguments, &store, state, &mut member, &mut boot, console).await?;
    Ok(Started { member, boot, store })
}

/// As far as a member comes by itself, with what it has kept: nobody says whether it still is one.
pub(crate) fn alone(arguments: &Arguments, image: &Image, console: &mut Console) -> Outcome<Started> {
    let settings = Settings::of(arguments)?;
    let state = settings.state.as_path();
    let missing = || Failure::new(Code::NotEnrolled, "this machine has not joined yet");
    let mut member = Pinned::load(state)?.ok_or_else(missing)?;
    member.join(image)?;
    if member.admit.is_none() {
        return Err(missing());
    }
    let store = KeyStore::open(state, &settings.storage, Some(&image.binding))?;
    let boot = store.boot()?;
    if member.chain.get(&boot.anchor()).is_none() {
        let detail = "the org's settings on the disk are older than those that this machine has seen";
        return Err(Failure::new(Code::HandoverRejected, detail));
    }
    if let Err(failure) = store.settle_node() {
        console.note(format_args!("the node's keys: {failure}"));
    }
    console.checkpoint("keys open; no gateway says whether this machine is still a member");
    Ok(Started { member, boot, store })
}

/// The invite, if one is given and still of use. Once this machine is a member only its org is looked at.
fn read_invite(
    path: Option<&Path>,
    pinned: Option<&Pinned>,
    console: &mut Console,
) -> Outcome<Option<CheckedInvite>> {
    let Some(path) = path else { return Ok(None) };
    let bytes = if path == Path::new("-") {
        files::read_all(std::io::stdin(), 2 * MANIFEST_BYTES_MAX).map_err(|e| Failure::file(path, &e))?
    } else {
        let bytes = files::read(path, 2 * MANIFEST_BYTES_MAX)?;
        bytes.ok_or_else(|| Failure::file(path, &std::io::ErrorKind::NotFound.into()))?
    };
    let bytes = Zeroizing::new(bytes);
    let text = core::str::from_utf8(&bytes).map_err(|_| Failure::new(Code::InviteMalformed, "not text"))?;
    let invite = InviteManifest::parse(text).and_then(InviteManifest::check);
    let invite = invite.map_err(|why| Failure::new(why.code(), why))?;
    if let Some(pinned) = pinned
        && pinned.org() != invite.org()
    {
        let detail = format_args!("this machine belongs to org {}", pinned.org().short()).to_string();
        return Err(Failure::new(Code::InviteOtherOrg, detail));
    }
    if pinned.is_some_and(|pinned| pinned.admit.is_some()) {
        console.note("this machine is a member already; the invite is not used");
        return Ok(None);
    }
    console.checkpoint(format_args!("invite of org {} holds", invite.org().short()));
    Ok(Some(invite))
}

/// Pins what the invite says, before any key is made: a key's first anchor is in what is pinned.
fn first(
    arguments: &Arguments,
    settings: &Settings,
    invite: Option<&CheckedInvite>,
    image: Option<&Image>,
    console: &mut Console,
) -> Outcome<Pinned> {
    let state = settings.state.as_path();
    if KeyStore::is_there(state)? {
        return Err(Failure::new(Code::AlreadyEnrolled, "there are keys here that did not come by this way"));
    }
    let invite = invite.ok_or_else(needs_invite)?;
    let bundle = match arguments.bundle.as_deref() {
        None => None,
        Some(path) => {
            let file = files::read(path, BUNDLE_BYTES_MAX)?;
            let file = file.ok_or_else(|| Failure::file(path, &std::io::ErrorKind::NotFound.into()))?;
            Some(TrustBundle::read(&file).map_err(|why| Failure::new(why.code(), why))?)
        }
    };
    let mut pinned = Pinned::of(invite, bundle)?;
    if let Some(image) = image {
        pinned.join(image)?;
    }
    pinned.store(state)?;
    console
        .checkpoint(format_args!("org settings, version {}, and trust bundle kept", version(&pinned.chain)));
    Ok(pinned)
}

/// Makes or opens the keys and asks the gateways for an admission.
async fn enrol(
    arguments: &Arguments,
    settings: &Settings,
    store: &KeyStore,
    member: &mut Pinned,
    invite: &CheckedInvite,
    console: &mut Console,
) -> Outcome<(Boot, Statement)> {
    let (mut boot, node) = store.open_or_make(member.chain.head().id())?;
    let kept = store.assurance();
    console
        .checkpoint(format_args!("keys of node {} open, key storage {kept}", node.identity.public().short()));
    let name = settings.name.clone().map_or_else(|| own_name(&node), Ok)?;
    let redemption = Redemption { invite: invite.id(), key: invite.secret(), redeemer: invite.redeemer() };
    let speaker = match invite.invite().attestation {
        true => Some(Speaker::of(store.tpm())?),
        false => None,
    };
    let (assurance, tpm) = match &speaker {
        Some(speaker) => {
            console.checkpoint(format_args!("TPM {} will speak for this machine", speaker.id()));
            (Assurance::TpmAttested, speaker.id().0)
        }
        None => (kept, [0; 32]),
    };
    let request = EnrolRequest::sign(&member.org(), node.keys(&boot), redemption, name, assurance, tpm);
    let mut chain = member.chain.clone();
    let (answered, admit) = try_each(arguments.attempts, &member.gateways, console, async |gateway| {
        let asked = Asked { request: &request, speaker: speaker.as_ref() };
        gateway::enrol(gateway, member, &mut chain, &boot, &node.identity, asked).await
    })
    .await?;
    if !same_keys(&admit, &request) {
        return Err(Failure::new(Code::FrameMalformed, "the gateway sent the admission of another machine"));
    }
    if chain.head().charter().gateway(admit.author()).is_none() {
        return Err(Failure::new(
            Code::GatewayNotNamed,
            "the admission is not signed by a gateway of the org",
        ));
    }
    console.checkpoint(format_args!("admitted by {answered}"));
    member.prefer(&answered);
    member.chain = chain;
    member.admit = Some(admit.clone());
    member.store(&settings.state)?;
    store.settle_node()?;
    advance(store, member, &mut boot)?;
    Ok((boot, admit))
}

/// Asks the gateways for what a member needs and hands it over.
async fn returning(
    arguments: &Arguments,
    store: &KeyStore,
    state: &Path,
    member: &mut Pinned,
    boot: &mut Boot,
    console: &mut Console,
) -> Outcome<()> {
    let mut chain = member.chain.clone();
    let (answered, fetched) = try_each(arguments.attempts, &member.gateways, console, async |gateway| {
        gateway::fetch(gateway, member, &mut chain, boot).await
    })
    .await?;
    let admit = member.admit.as_ref().and_then(admit_of);
    let ours = admit.is_some_and(|a| is_key_of(a, &member.org(), &boot.key.public(), &fetched.records));
    if !ours {
        return Err(Failure::new(
            Code::HandoverRejected,
            "the keys are not the ones this machine was admitted with, nor later ones of it",
        ));
    }
    member.prefer(&answered);
    member.chain = chain;
    console.checkpoint(format_args!(
        "{answered} knows this machine; {} records, org settings version {}",
        fetched.count,
        version(&member.chain)
    ));
    // First what the anchor will name, then the anchor: after a power cut between the two the file is
    // ahead of the anchor, which is fine; the reverse would lock the machine out.
    member.store(state)?;
    advance(store, member, boot)?;
    let bundle = TrustBundle::accepted(Some(&member.bundle), member.chain.head().charter())
        .map_err(|why| Failure::new(why.code(), why))?;
    let charters = member.charters();
    let admit = member.admit.as_ref().map(|admit| admit.bytes()).unwrap_or_default();
    files::replace_directory(
        &state.join("handover"),
        &[
            ("charters", &charters),
            ("bundle.pem", bundle.to_pem().as_bytes()),
            ("admit", admit),
            ("records", &fetched.records),
        ],
    )?;
    console.checkpoint(format_args!("handed over to musterd in {}", state.join("handover").display()));
    Ok(())
}

fn advance(store: &KeyStore, member: &Pinned, boot: &mut Boot) -> Outcome<()> {
    let head = member.chain.head().id();
    if head == boot.anchor() { Ok(()) } else { store.advance(boot, head) }
}

/// Asks each gateway in turn, and all of them again while what failed may pass. An admin who has to
/// approve the machine gets more time than a fault.
pub(crate) async fn try_each<T>(
    attempts: u32,
    gateways: &[Address],
    console: &Console,
    mut ask: impl AsyncFnMut(&Address) -> Outcome<T>,
) -> Outcome<(Address, T)> {
    let mut last = Failure::new(Code::InviteBroken, "no gateway is named");
    let mut pause = FIRST_PAUSE;
    let (mut attempt, mut waited) = (0, 0);
    loop {
        let mut passes = false;
        for gateway in gateways {
            match ask(gateway).await {
                Ok(answer) => return Ok((gateway.clone(), answer)),
                Err(failure) => {
                    // Said once: people take their time, and the console is small.
                    if failure.code != Code::ApprovalPending || waited == 0 {
                        console.note(format_args!("{gateway}: {failure}"));
                    }
                    passes |= failure.passes();
                    last = failure;
                }
            }
        }
        let waits = last.code == Code::ApprovalPending;
        if waits {
            waited += 1;
        } else {
            attempt += 1;
        }
        if !passes || attempt >= attempts || waited >= APPROVAL_ASKED_MAX {
            return Err(last);
        }
        if waits {
            console.note(format_args!("asking again in {} s", pause.as_secs()));
        } else {
            console.note(format_args!("trying again in {} s ({attempt} of {attempts})", pause.as_secs()));
        }
        // Machines that boot together must not come back together.
        sleep(pause + Duration::from_millis(rand::random_range(0..1000))).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn same_keys(admit: &Statement, request: &EnrolRequest) -> bool {
    let claimed = request.claimed();
    admit_of(admit).is_some_and(|admit| {
        (admit.node, admit.wireguard, admit.boot) == (claimed.node, claimed.wireguard, claimed.boot)
    })
}

/// The host's name, or one from the key where that is no name in an org.
fn own_name(node: &Node) -> Outcome<Name> {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().to_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    let from_key = || Name::parse(&format!("node-{}", node.identity.public().short()));
    let name = Name::parse(label).or_else(|_| from_key());
    name.map_err(|why| Failure::new(Code::Usage, format_args!("--name is needed: {why}")))
}

fn needs_invite() -> Failure {
    Failure::new(Code::NotEnrolled, "the first start needs --invite FILE")
}

fn version(chain: &CharterChain) -> u32 {
    chain.head().charter().version
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// An hour of them: then the machine stops, and asks again when it is started again.
const APPROVAL_ASKED_MAX: u32 = 120;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn asked(attempts: u32, code: Code, well_at: u32) -> (u32, Outcome<u32>) {
        let gateways = ["a:1", "b:1"].map(|text| Address::parse(text).ok()).into_iter().flatten();
        let gateways: Vec<_> = gateways.collect();
        let count = Cell::new(0);
        let console = Console::default();
        let result = try_each(attempts, &gateways, &console, async |_| {
            count.set(count.get() + 1);
            if count.get() == well_at { Ok(count.get()) } else { Err(Failure::new(code, "")) }
        });
        let result = result.await.map(|(_, answer)| answer);
        (count.get(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_the_rest_is_not() {
        assert_eq!(asked(5, Code::Busy, 5).await, (5, Ok(5)), "each gateway, then each once more");
        let (times, result) = asked(3, Code::GatewayUnreachable, 0).await;
        assert_eq!((times, result.unwrap_err().code), (6, Code::GatewayUnreachable));
        assert_eq!(asked(5, Code::GatewayRefused, 3).await, (3, Ok(3)), "it may be starting");
        assert_eq!(asked(1, Code::ApprovalPending, 100).await, (100, Ok(100)), "people take their time");
        let (times, result) = asked(1, Code::ApprovalPending, 0).await;
        assert_eq!((times, result.unwrap_err().code), (2 * APPROVAL_ASKED_MAX, Code::ApprovalPending));
        let (times, result) = asked(5, Code::Revoked, 0).await;
        assert_eq!((times, result.unwrap_err().code), (2, Code::Revoked), "another gateway may know better");
    }
}
