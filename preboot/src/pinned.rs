//! What this machine holds for true about its org before it asks anybody: the settings' chain from the
//! first one on, the trust bundle, the gateways' addresses, and its own admission.

use std::path::{Path, PathBuf};

use identity::{
    Code, OrgId, PublicKey,
    limits::{
        BUNDLE_BYTES_MAX, CHARTER_BYTES_MAX, CHARTERS_MAX, MANIFEST_BYTES_MAX, ROTATIONS_MAX,
        STATEMENT_BYTES_MAX,
    },
};
use org_trust::{
    Admit, CharterChain, CheckedInvite, Payload, Record, Records, Statement, TrustBundle, UnverifiedStatement,
};
use transport::Address;

use crate::{
    failure::{Failure, Outcome},
    files,
    start::Image,
};

/// The directory `preboot` in the state directory, checked.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) chain: CharterChain,
    pub(crate) bundle: TrustBundle,
    pub(crate) gateways: Vec<Address>,
    /// The statement by which this machine became a member.
    pub(crate) admit: Option<Statement>,
}

impl Pinned {
    /// From an invite; `bundle` is the image's own and stands above the invite's.
    pub(crate) fn of(invite: &CheckedInvite, bundle: Option<TrustBundle>) -> Outcome<Self> {
        Ok(Self {
            chain: invite.chain().clone(),
            bundle: bundle.unwrap_or_else(|| invite.bundle().clone()),
            gateways: addresses(invite.gateways().iter().map(String::as_str))?,
            admit: None,
        })
    }

    /// Takes in what an image pins: newer settings, more gateways. An image of another org is none of
    /// this machine's.
    pub(crate) fn join(&mut self, image: &Image) -> Outcome<()> {
        if image.chain.org() != self.org() {
            let detail = format_args!(
                "the image is of org {}, this is of {}",
                image.chain.org().short(),
                self.org().short()
            )
            .to_string();
            return Err(Failure::new(Code::ImageOtherOrg, detail));
        }
        if image.chain.get(&self.chain.head().id()).is_some() {
            self.chain = image.chain.clone();
        }
        for gateway in addresses(image.gateways.iter().map(String::as_str))? {
            if !self.gateways.contains(&gateway) {
                self.gateways.push(gateway);
            }
        }
        Ok(())
    }

    /// What is pinned in this state directory, if anything is.
    pub(crate) fn load(state: &Path) -> Outcome<Option<Self>> {
        let dir = directory(state);
        let Some(charters) = files::read(&dir.join(CHARTERS), CHARTERS_MAX * CHARTER_BYTES_MAX)? else {
            return Ok(None);
        };
        let damaged =
            |what: &str| Failure::new(Code::HandoverRejected, format_args!("{}: {what}", dir.display()));
        let needed = |name: &str, max: usize| files::read(&dir.join(name), max)?.ok_or_else(|| damaged(name));
        let chain = CharterChain::read_file(&charters).map_err(|_| damaged(CHARTERS))?;
        let bundle = TrustBundle::read(&needed(BUNDLE, BUNDLE_BYTES_MAX)?);
        let bundle = bundle.map_err(|why| Failure::new(why.code(), why))?;
        let gateways =
            String::from_utf8(needed(GATEWAYS, MANIFEST_BYTES_MAX)?).map_err(|_| damaged(GATEWAYS))?;
        let admit = match files::read(&dir.join(ADMIT), STATEMENT_BYTES_MAX)? {
            None => None,
            Some(bytes) => Some(read_admit(&bytes, &chain.org()).ok_or_else(|| damaged(ADMIT))?),
        };
        Ok(Some(Self { chain, bundle, gateways: addresses(gateways.lines())?, admit }))
    }

    /// Writes all of it, at once.
    pub(crate) fn store(&self, state: &Path) -> Outcome<()> {
        let charters = self.charters();
        let bundle = self.bundle.to_pem();
        let gateways: String = self.gateways.iter().map(|gateway| format!("{gateway}\n")).collect();
        let mut content: Vec<(&str, &[u8])> =
            vec![(CHARTERS, &charters), (BUNDLE, bundle.as_bytes()), (GATEWAYS, gateways.as_bytes())];
        if let Some(admit) = &self.admit {
            content.push((ADMIT, admit.bytes()));
        }
        files::replace_directory(&directory(state), &content)
    }

    /// The chain as a file.
    pub(crate) fn charters(&self) -> Vec<u8> {
        Records::batches(self.chain.iter().map(Record::from), usize::MAX).flatten().collect()
    }

    pub(crate) fn org(&self) -> OrgId {
        self.chain.org()
    }

    /// Puts a gateway in front: it answered.
    pub(crate) fn prefer(&mut self, gateway: &Address) {
        self.gateways.sort_by_key(|other| other != gateway);
    }
}

/// The admission in these bytes, if its four proofs and its author's signature hold.
pub(crate) fn read_admit(bytes: &[u8], org: &OrgId) -> Option<Statement> {
    let statement = UnverifiedStatement::decode(bytes).ok()?.verify(org).ok()?;
    admit_of(&statement).is_some().then_some(statement)
}

/// What an admission says.
pub(crate) fn admit_of(statement: &Statement) -> Option<&Admit> {
    statement.payload().admit()
}

/// Whether a boot key is the one of this admission, or one that the same machine got later: by a chain of
/// changes among `records`, each signed by the node key before it.
pub(crate) fn is_key_of(admit: &Admit, org: &OrgId, boot: &PublicKey, records: &[u8]) -> bool {
    if admit.boot == *boot {
        return true;
    }
    let records = Records::decode_all(records).unwrap_or_default().into_iter();
    let rotations: Vec<UnverifiedStatement> = records
        .filter_map(|record| match record {
            Record::Statement(bytes) => UnverifiedStatement::decode(&bytes).ok(),
            Record::Charter(_) | Record::Report(_) => None,
        })
        .filter(|statement| matches!(statement.claimed().payload(), Payload::Rotate(_)))
        .collect();
    let mut node = admit.node;
    // A machine that signed two is in conflict; the gateway has said that it is not.
    for _ in 0..ROTATIONS_MAX {
        let next = rotations.iter().find(|statement| *statement.claimed().author() == node);
        let Some(Ok(statement)) = next.map(|statement| statement.clone().verify(org)) else { return false };
        let Payload::Rotate(rotate) = statement.payload() else { return false };
        if rotate.boot == *boot {
            return true;
        }
        node = rotate.node;
    }
    false
}

fn addresses<'a>(lines: impl Iterator<Item = &'a str>) -> Outcome<Vec<Address>> {
    lines
        .map(|line| {
            Address::parse(line)
                .map_err(|why| Failure::new(Code::InviteBroken, format_args!("{line}: {why}")))
        })
        .collect()
}

fn directory(state: &Path) -> PathBuf {
    state.join("preboot")
}

const CHARTERS: &str = "charters";
const BUNDLE: &str = "bundle.pem";
const GATEWAYS: &str = "gateways";
const ADMIT: &str = "admit";
