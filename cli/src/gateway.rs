//! `muster gateway`: which members let machines in. The member makes its own keys, for the role and for
//! TLS; the holder of the org's keys names the one and certifies the other.

use std::path::Path;

use control::{
    local::{Answer, Request},
    text::Bytes,
};
use identity::{Code, PublicKey, StatementId, limits::GATEWAY_REQUEST_BYTES_MAX};
use member_crdt::MemberState;
use org_trust::{CaState, Charter, Gateway, GatewayRequest, Statement};
use serde_json::{Value, json};
use transport::Address;

use crate::{
    admin,
    args::{Everywhere, GatewayAdd, GatewayInit, GatewayRemove},
    coverage,
    failure::{Failure, Outcome},
    files,
    key_file::OrgKeys,
    local::{self, Daemon},
    org_create::{self, GATEWAY_CERTIFICATE, GATEWAY_CONFIG, GATEWAY_KEY},
    output::{self, talk},
    place::{self, Places},
    profile::Admin,
    removal::{self, Keep},
    settings::{self, Held, Settings},
    tls_keys::{GatewayKey, TlsCa},
};

/// Any file that such a line lies in.
const LINE_BYTES_MAX: usize = 4 * GATEWAY_REQUEST_BYTES_MAX;

/// `gateway init`.
pub(crate) fn init(everywhere: &Everywhere, args: &GatewayInit) -> Outcome<()> {
    let address = Address::parse(&args.address)
        .map_err(|e| Failure::usage(format_args!("--address {}: {e}", args.address)))?;
    let places = Places::find(everywhere)?;
    let mut daemon = Daemon::connect(&places.socket)?;
    let directory = &everywhere.config_dir;
    let tls_key = tls_key(&directory.join(GATEWAY_KEY))?;
    let request =
        Request::PrepareGateway { tls_key: Bytes(tls_key.public()?.to_vec()), address: address.to_string() };
    let Answer::GatewayRequest(asked) = daemon.ask(&request)? else { return Err(local::unexpected()) };
    let front = directory.join(GATEWAY_CONFIG);
    if !front.exists() {
        let config = org_create::gateway_config(directory, &address, &places);
        files::create(&front, files::PUBLIC, config.as_bytes())?;
    }
    let restart = places.gateway_socket.is_none();
    if restart {
        let main = directory.join(place::CONFIG);
        let drop_ins = files::with_suffix(&main, ".d");
        files::create_directory(&drop_ins, 0o755)?;
        let config = format!("[gateway]\nsocket = \"{}\"\n", place::GATEWAY_SOCKET);
        files::replace(&drop_ins.join("gateway.toml"), files::PUBLIC, config.as_bytes())?;
    }
    let value = json!({
        "request": asked.line,
        "gateway": { "key": asked.key.to_string(), "address": address.to_string() },
        "new_key": asked.new,
        "restart_musterd": restart,
    });
    output::print(everywhere.format(), value, || format!("{}\n", asked.line));
    let first = if restart { "systemctl restart musterd; then: " } else { "" };
    talk(&format!(
        "Whoever holds the org keys makes this member a gateway and gets its certificate:\n\
         \x20 muster gateway add LINE --out {GATEWAY_CERTIFICATE}\n\
         Put that file here as {}. {first}systemctl enable --now muster-gateway",
        directory.join(GATEWAY_CERTIFICATE).display()
    ));
    Ok(())
}

/// The key that is there, or a new one.
fn tls_key(path: &Path) -> Outcome<GatewayKey> {
    if path.exists() {
        let pem = files::read_secret(path, LINE_BYTES_MAX)?;
        let pem = core::str::from_utf8(&pem)
            .map_err(|_| Failure::new(Code::FileProblem, format_args!("{}: not PEM", path.display())))?;
        return GatewayKey::from_pem(pem);
    }
    let key = GatewayKey::generate()?;
    files::create(path, files::SECRET, key.pem().as_bytes())?;
    Ok(key)
}

/// `gateway add`.
pub(crate) fn add(everywhere: &Everywhere, args: &GatewayAdd) -> Outcome<u8> {
    if let Some(path) = args.out.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::usage(format_args!("{} exists", path.display())).remedy("Name a new file."));
    }
    let broken = |why| Failure::new(Code::GatewayRequestInvalid, why);
    let text = read(&args.request)?;
    let request = GatewayRequest::parse(&text).map_err(broken)?;
    let mut settings = Settings::open(everywhere, &args.org_keys)?;
    let request = request.verify(&settings.held.chain().org()).map_err(broken)?;
    let roster = settings.held.replica.roster();
    let member = roster.get(&request.node()).filter(|member| member.state == MemberState::Good);
    let name = member.map(|member| member.name.to_string()).ok_or_else(|| {
        Failure::new(Code::NoSuchMember, format_args!("no member in good order has key {}", request.node()))
    })?;
    let address =
        Address::parse(request.address()).map_err(|e| Failure::new(Code::GatewayRequestInvalid, e))?;
    let certificate = certificate(settings.charter(), settings.keys(), &address, request.tls_key())?;
    let gateway = Gateway { key: request.gateway(), node: request.node() };
    let changed = if settings.charter().gateways.contains(&gateway) {
        talk("It is a gateway of the org already; only the certificate is written.");
        None
    } else {
        let mut next = settings.charter().successor();
        next.gateways.push(gateway.clone());
        let question = format!(
            "Make {name} a gateway at {address}? It lets machines with an invite in, and whoever takes its \
             keys can do so until it is removed."
        );
        Some(settings.change(everywhere, next, Some(&question))?)
    };
    add_address(everywhere, &address)?;
    if let Some(path) = &args.out {
        files::create(path, files::PUBLIC, certificate.as_bytes())?;
    }
    let value = json!({
        "gateway": {
            "name": name,
            "node_key": gateway.node.to_string(),
            "key": gateway.key.to_string(),
            "address": address.to_string(),
        },
        "certificate": certificate,
        "file": args.out,
    });
    let shown = if args.out.is_some() { format!("{name} is a gateway at {address}") } else { certificate };
    let Some(changed) = changed else {
        output::print(everywhere.format(), value, || format!("{}\n", shown.trim_end()));
        return Ok(0);
    };
    let waited = coverage::wait(everywhere, &mut *settings.carrier, changed.id, &args.waiting);
    if args.out.is_none() {
        // The certificate alone stands on stdout, to be piped into its file.
        talk(&format!("{name} is a gateway at {address}; org settings, version {}", changed.version));
        talk(waited.text().trim_end());
        let fields = changed.fields().into_iter().chain(waited.fields());
        output::print(everywhere.format(), output::with(value, fields), || shown);
        return Ok(waited.exit_status());
    }
    Ok(settings::report(everywhere, &changed, value, &shown, waited))
}

/// `gateway remove`.
pub(crate) fn remove(everywhere: &Everywhere, args: &GatewayRemove) -> Outcome<u8> {
    let mut settings = Settings::open(everywhere, &args.org_keys)?;
    let gateway = find(&settings.held, &args.gateway)?;
    let name = name_of(&settings.held, &gateway.node);
    if settings.charter().gateways.len() <= 1 && !args.last {
        let seen = format!(
            "{name} is the last gateway: without one nobody can join, no machine can start over the network, \
             and admins reach the org only through a musterd on their own machine"
        );
        return Err(Failure::new(Code::NeedsYes, seen).remedy("If that is what you want, add --last."));
    }
    let keep = match (args.void_all, &args.void_from) {
        (true, _) => Keep::Nothing,
        (false, None) => Keep::Held,
        (false, Some(node)) => Keep::Before(vec![admission(&settings.held, node, &gateway.key)?]),
    };
    let mut next = settings.charter().successor();
    let what = without(&settings.held, &mut next, std::slice::from_ref(&gateway), &keep)?;
    let question =
        format!("Take the gateway role from {name} (key {})? For good, {what}.", gateway.key.short());
    let changed = settings.change(everywhere, next, Some(&question))?;
    if let Some(address) = &args.address {
        remove_address(everywhere, address)?;
    }
    let waited = coverage::wait(everywhere, &mut *settings.carrier, changed.id, &args.waiting);
    let value = json!({
        "gateway": { "name": name, "node_key": gateway.node.to_string(), "key": gateway.key.to_string() },
    });
    let line = format!("{name} is no gateway any longer; {what}");
    Ok(settings::report(everywhere, &changed, value, &line, waited))
}

/// Takes these gateways out of the next settings; in words what still counts of them.
pub(crate) fn without(held: &Held, next: &mut Charter, gateways: &[Gateway], keep: &Keep) -> Outcome<String> {
    let (mut counting, mut void) = (0, 0);
    for gateway in gateways {
        next.gateways.retain(|other| other.key != gateway.key);
        let kept = removal::kept(&gateway.key, &held.signed_by(&gateway.key)?, keep);
        next.cuts.extend(kept.cuts);
        counting += kept.counting;
        void += kept.void;
    }
    Ok(admin::counts(counting, void, keep))
}

/// The change by which a gateway's key let a machine in.
pub(crate) fn admission(held: &Held, node: &str, gateway: &PublicKey) -> Outcome<StatementId> {
    admit(held, node, gateway).map(|change| change.id())
}

/// The last change of a gateway's key before the one by which it let a machine in.
pub(crate) fn before_admission(held: &Held, node: &str, gateway: &PublicKey) -> Outcome<Option<StatementId>> {
    let change = admit(held, node, gateway)?;
    Ok((change.seq() > 0).then_some(StatementId(change.prev())))
}

fn admit(held: &Held, node: &str, gateway: &PublicKey) -> Outcome<Statement> {
    let roster = held.replica.roster();
    let member = roster.find(node).map_err(|why| Failure::new(why.code(), format_args!("{node}: {why}")))?;
    let admits = |change: &Statement| change.payload().admit().is_some_and(|admit| admit.node == member.node);
    held.signed_by(gateway)?.into_iter().find(admits).ok_or_else(|| {
        Failure::usage(format_args!("{} was not let in by this gateway", member.name))
            .remedy("`muster member show NODE` prints the key that let it in.")
    })
}

/// `gateway list`.
pub(crate) fn list(everywhere: &Everywhere) -> Outcome<()> {
    let held = Held::look(everywhere)?;
    let roster = held.replica.roster();
    let mut rows = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for gateway in &held.chain().head().charter().gateways {
        let member = roster.member_of(&gateway.node);
        let good = member.is_some_and(|member| member.state == MemberState::Good);
        let let_in = roster.members().iter().filter(|m| m.admitted_by == gateway.key).count();
        let since = held.chain().named(&gateway.key).map_or(0, |named| named.charter().version);
        let name = name_of(&held, &gateway.node);
        values.push(json!({
            "name": name,
            "node_key": gateway.node.to_string(),
            "key": gateway.key.to_string(),
            "member_in_good_order": good,
            "since_settings": since,
            "let_in": let_in,
        }));
        rows.push([
            name,
            gateway.key.to_string(),
            format!("version {since}"),
            let_in.to_string(),
            if good { "good" } else { "no member" }.to_owned(),
        ]);
    }
    output::print(everywhere.format(), json!({ "gateways": values }), || {
        output::columns(["NAME", "KEY", "SINCE SETTINGS", "LET IN", "MEMBER"], &rows)
    });
    Ok(())
}

/// The gateway that a member's name, or the first digits of its key or of the role's key, mean.
fn find(held: &Held, text: &str) -> Outcome<Gateway> {
    let gateways = &held.chain().head().charter().gateways;
    let roster = held.replica.roster();
    let is = |gateway: &&Gateway| {
        let named = roster.member_of(&gateway.node).is_some_and(|member| member.name.as_str() == text);
        let by_key = |key: &PublicKey| text.len() >= 4 && key.to_string().starts_with(text);
        named || by_key(&gateway.key) || by_key(&gateway.node)
    };
    let found: Vec<&Gateway> = gateways.iter().filter(is).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Failure::new(Code::NoSuchRole, format_args!("no gateway {text:?}"))),
        several => {
            let lines: Vec<_> = several.iter().map(|g| format!("{}  on {}", g.key, g.node.short())).collect();
            Err(Failure::usage(format_args!("{text:?} means any of\n{}", lines.join("\n")))
                .remedy("Give the first digits of the gateway's key."))
        }
    }
}

fn name_of(held: &Held, node: &PublicKey) -> String {
    held.replica.roster().member_of(node).map_or_else(|| node.short(), |member| member.name.to_string())
}

/// The gateway's certificate with the CA's behind it, PEM.
fn certificate(charter: &Charter, keys: &OrgKeys, address: &Address, tls_key: &[u8; 32]) -> Outcome<String> {
    for ca in charter.tls_cas.iter().filter(|ca| ca.state == CaState::Active) {
        if let Some(ca) = TlsCa::open(&keys.name, &keys.tls_ca, &ca.certificate)? {
            return Ok(format!("{}{}", ca.certify(address.host(), tls_key)?, ca.certificate_pem()));
        }
    }
    Err(Failure::new(
        Code::BundleInvalid,
        "the org's settings have no active TLS CA of the key in the org's keys",
    )
    .remedy("Look at `muster org show`; use the newest copy of org-keys.age."))
}

fn add_address(everywhere: &Everywhere, address: &Address) -> Outcome<()> {
    let Ok(mut admin) = Admin::find(everywhere) else { return Ok(()) };
    let address = address.to_string();
    if admin.profile.gateways.contains(&address) {
        return Ok(());
    }
    admin.profile.gateways.push(address);
    admin.save()
}

fn remove_address(everywhere: &Everywhere, address: &str) -> Outcome<()> {
    let Ok(mut admin) = Admin::find(everywhere) else { return Ok(()) };
    admin.profile.gateways.retain(|other| other != address);
    admin.save()
}

fn read(given: &str) -> Outcome<String> {
    if given.trim_start().starts_with(GatewayRequest::PREFIX) {
        return Ok(given.to_owned());
    }
    if given == "-" {
        let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(std::io::stdin(), limit), &mut text)
            .map_err(|e| Failure::new(Code::GatewayRequestInvalid, format_args!("stdin: {e}")))?;
        return Ok(text);
    }
    let path = Path::new(given);
    if !path.exists() {
        return Err(Failure::new(Code::GatewayRequestInvalid, "neither such a line nor a file"));
    }
    files::read_text(path, LINE_BYTES_MAX)
}
