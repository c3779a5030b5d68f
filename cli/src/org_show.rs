//! `muster org show`: the settings in force.

use control::text::Text;
use identity::Code;
use org_trust::{CharterChain, Record, TrustBundle};
use serde_json::json;

use crate::{
    args::Everywhere,
    author, duration,
    failure::{Failure, Outcome},
    local::Daemon,
    output,
    place::Places,
    profile::Admin,
};

/// Runs the command: from the admin's own file, or from the musterd of this machine.
pub(crate) fn run(everywhere: &Everywhere) -> Outcome<()> {
    let (chain, addresses) = settings(everywhere)?;
    let charter = chain.head().charter();
    let bundle = TrustBundle::accepted(None, charter);
    let cas = bundle.as_ref().map(TrustBundle::certificates).unwrap_or_default();
    let ca_value = |ca: &org_trust::TlsCa| {
        let anchor = cas.iter().find(|anchor| anchor.der() == ca.certificate);
        json!({
            "state": ca.state.as_str(),
            "subject": anchor.map(org_trust::Anchor::subject),
            "expires": anchor.map(|a| expires(a.not_after_unix_s())),
        })
    };
    let value = json!({
        "id": Text(chain.org()).to_string(),
        "name": charter.name.as_str(),
        "settings": charter.version,
        "settings_id": chain.head().id().to_string(),
        "root_keys": charter.root_keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "root_keys_needed": charter.root_threshold,
        "admins": charter.admins.iter().map(|a| json!({ "name": a.name.as_str(), "key": a.key.to_string() })).collect::<Vec<_>>(),
        "admins_needed_to_revoke": charter.revoke_threshold,
        "gateways": charter.gateways.iter().map(|g| json!({ "key": g.key.to_string(), "node_key": g.node.to_string() })).collect::<Vec<_>>(),
        "gateway_addresses": addresses,
        "tls_cas": charter.tls_cas.iter().map(ca_value).collect::<Vec<_>>(),
    });
    output::print(everywhere.format(), value, || {
        let mut rows = vec![
            ["id".to_owned(), chain.org().to_string()],
            ["settings".into(), format!("version {}", charter.version)],
        ];
        rows.extend(charter.root_keys.iter().map(|key| ["root key".into(), key.to_string()]));
        rows.extend(charter.admins.iter().map(|a| ["admin".into(), format!("{}  {}", a.key, a.name)]));
        rows.push([
            "to revoke".into(),
            format!("{} of {} admins", charter.revoke_threshold, charter.admins.len()),
        ]);
        rows.extend(
            charter.gateways.iter().map(|g| ["gateway".into(), format!("{}  on {}", g.key, g.node.short())]),
        );
        rows.extend(addresses.iter().map(|a| ["gateway at".into(), a.clone()]));
        rows.extend(charter.tls_cas.iter().map(|ca| {
            let anchor = cas.iter().find(|anchor| anchor.der() == ca.certificate);
            let detail = anchor.map(|a| format!("{}, until {}", a.subject(), expires(a.not_after_unix_s())));
            ["tls ca".into(), format!("{}  {}", ca.state.as_str(), detail.unwrap_or_default())]
        }));
        output::columns(["ORG", charter.name.as_str()], &rows)
    });
    Ok(())
}

/// Every version that is known here, and the addresses of the gateways if an admin's file has them.
pub(crate) fn settings(everywhere: &Everywhere) -> Outcome<(CharterChain, Vec<String>)> {
    match Daemon::connect(&Places::find(everywhere)?.socket) {
        Ok(mut daemon) if everywhere.admin.is_none() => Ok((from_daemon(&mut daemon)?, Vec::new())),
        Ok(_) => from_profile(everywhere),
        Err(failure) => from_profile(everywhere).map_err(|_| failure),
    }
}

fn from_profile(everywhere: &Everywhere) -> Outcome<(CharterChain, Vec<String>)> {
    let profile = Admin::find(everywhere)?.profile;
    Ok((profile.chain, profile.gateways))
}

fn from_daemon(daemon: &mut Daemon) -> Outcome<CharterChain> {
    let records = author::export(daemon)?;
    let settings = records.iter().filter(|record| matches!(record, Record::Charter(_)));
    let mut settings = settings.map(Record::bytes).peekable();
    if settings.peek().is_none() {
        return Err(Failure::new(Code::NotEnrolled, "musterd holds no settings of an org"));
    }
    CharterChain::read(settings).map_err(|e| Failure::new(Code::ChartersInvalid, e))
}

fn expires(unix_s: i64) -> String {
    duration::rfc3339(u64::try_from(unix_s).unwrap_or(0))
}
