//! What is known of the org here, without asking anybody outside: its settings, its gateways, and the CAs
//! that are accepted. Never the system's.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use control::local::{Answer, Request};
use diagnosis::{Check, Stage};
use identity::{
    Code,
    limits::{BUNDLE_BYTES_MAX, CHARTER_BYTES_MAX, CHARTERS_MAX, MANIFEST_BYTES_MAX},
};
use org_trust::{Anchor, BundleError, CaState, CharterChain, Record, TrustBundle};

use crate::{
    args::{Connection, Everywhere},
    author,
    failure::{Failure, Outcome},
    files,
    local::Daemon,
    place::Places,
    profile::Admin,
};

pub(crate) struct Known {
    /// Where it is from, for people.
    pub(crate) source: String,
    pub(crate) chain: Option<CharterChain>,
    pub(crate) gateways: Vec<String>,
    /// None if the bundle is none.
    pub(crate) anchors: Option<TrustBundle>,
    pub(crate) retired: Vec<Anchor>,
    /// What is to be said of the bundle.
    pub(crate) bundle: Check,
}

/// Settings, gateways and bundle of one place.
struct Held {
    source: String,
    chain: Option<CharterChain>,
    gateways: Vec<String>,
    /// As it lies there.
    bundle: Option<Vec<u8>>,
}

impl Known {
    pub(crate) fn find(everywhere: &Everywhere, places: &Places, args: &Connection) -> Outcome<Self> {
        let held = held(everywhere, places, args)?;
        let given = match &args.org_ca {
            Some(path) => Some(first_bytes(path).map_err(|error| Failure::file(path, &error))?),
            None => None,
        };
        let source = match &args.org_ca {
            Some(path) => path.display().to_string(),
            None => held.source.clone(),
        };
        let charter = held.chain.as_ref().map(|chain| chain.head().charter());
        let listed = charter.into_iter().flat_map(|charter| &charter.tls_cas);
        let retired: Vec<Anchor> = listed
            .filter(|ca| ca.state == CaState::Retired)
            .filter_map(|ca| TrustBundle::from_certificates([ca.certificate.clone()]).ok())
            .flat_map(|bundle| bundle.certificates().to_vec())
            .collect();
        let anchors = match (&given, charter) {
            // What was given and no other, so that it can be tried before it is handed out.
            (Some(file), None) => TrustBundle::read(file),
            (Some(file), Some(charter)) => {
                TrustBundle::read(file).and_then(|bundle| bundle.less_retired(charter))
            }
            (None, Some(charter)) => held
                .bundle
                .as_deref()
                .map(TrustBundle::read)
                .transpose()
                .and_then(|bundle| TrustBundle::accepted(bundle.as_ref(), charter)),
            (None, None) => Err(BundleError::Empty),
        };
        let bundle = described(&anchors);
        let gateways = held.gateways;
        Ok(Self { source, chain: held.chain, gateways, anchors: anchors.ok(), retired, bundle })
    }
}

fn described(anchors: &Result<TrustBundle, BundleError>) -> Check {
    let bundle = match anchors {
        Ok(bundle) => bundle,
        Err(why) => return Check::fail(Stage::Bundle, why.code(), why.to_string()),
    };
    let count = bundle.certificates().len();
    let inner = bundle.certificates().iter().filter(|anchor| !anchor.self_issued()).count();
    let plural = if count == 1 { "" } else { "s" };
    let seen = match inner {
        0 => format!("{count} CA certificate{plural}"),
        _ => format!("{count} CA certificate{plural}, {inner} of them intermediate"),
    };
    Check::ok(Stage::Bundle, seen)
}

fn held(everywhere: &Everywhere, places: &Places, args: &Connection) -> Outcome<Held> {
    let pinned = places.state.join("preboot");
    if args.as_preboot {
        return of_preboot(&pinned);
    }
    if everywhere.admin.is_some() {
        return of_admin(everywhere);
    }
    // musterd has the newest settings, preboot's directory the bundle: together what a member goes by.
    let ours = of_preboot(&pinned);
    let daemon = of_daemon(&places.socket);
    match (ours, daemon) {
        (Ok(mut held), newer) => {
            if let Ok(chain) = newer {
                held.chain = Some(chain);
            }
            Ok(held)
        }
        (Err(_), Ok(chain)) => {
            let gateways = of_admin(everywhere).map(|held| held.gateways).unwrap_or_default();
            Ok(Held { source: "musterd".to_owned(), chain: Some(chain), gateways, bundle: None })
        }
        (Err(_), Err(_)) => match of_admin(everywhere) {
            Err(_) if args.org_ca.is_some() => {
                Ok(Held { source: String::new(), chain: None, gateways: Vec::new(), bundle: None })
            }
            Err(_) => Err(Failure::usage("nothing here says which CA certificates count")
                .remedy("Give --org-ca FILE, or run this on a member or where the admin key is.")),
            found => found,
        },
    }
}

/// One byte more than a bundle may have, which is enough to refuse it.
fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BUNDLE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What muster-preboot goes by at its next start.
fn of_preboot(dir: &Path) -> Outcome<Held> {
    let charters = files::read(&dir.join("charters"), CHARTERS_MAX * CHARTER_BYTES_MAX)?;
    let chain = CharterChain::read_file(&charters)
        .map_err(|why| Failure::new(Code::HandoverRejected, format_args!("{}: {why}", dir.display())))?;
    let bundle = files::read(&dir.join("bundle.pem"), BUNDLE_BYTES_MAX + 1)?;
    let gateways = files::read_text(&dir.join("gateways"), MANIFEST_BYTES_MAX)?;
    let gateways = gateways.lines().map(str::to_owned).collect();
    Ok(Held { source: dir.display().to_string(), chain: Some(chain), gateways, bundle: Some(bundle) })
}

fn of_admin(everywhere: &Everywhere) -> Outcome<Held> {
    let Admin { profile, key_file } = Admin::find(everywhere)?;
    let source = key_file.with_file_name(crate::profile::PROFILE_FILE).display().to_string();
    let (gateways, bundle) = (profile.gateways, Some(profile.bundle.into_bytes()));
    Ok(Held { source, chain: Some(profile.chain), gateways, bundle })
}

/// The org's settings as this machine's musterd has them.
fn of_daemon(socket: &Path) -> Outcome<CharterChain> {
    let mut daemon = Daemon::connect(socket)?;
    let mut settings = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let Answer::Export(page) = daemon.ask(&Request::Export { from: at })? else {
            return Err(crate::local::unexpected());
        };
        let records = author::decode_each(&page.records)?;
        // Settings come first: a page with anything else is the last that matters.
        let more = records.iter().all(|record| matches!(record, Record::Charter(_)));
        settings.extend(records.into_iter().filter_map(|record| match record {
            Record::Charter(bytes) => Some(bytes),
            Record::Statement(_) | Record::Report(_) => None,
        }));
        from = page.next.filter(|next| more && *next > at);
    }
    CharterChain::read(settings.iter().map(Vec::as_slice))
        .map_err(|why| Failure::new(Code::ChartersInvalid, why))
}
