//! `muster org log`: every version of the org's settings, what it changed, and which keys signed it.
//! Settings carry no time; where the org keys were used, the age of the kept copy tells it.

use std::time::UNIX_EPOCH;

use org_trust::{Charter, UnverifiedCharter, VerifiedCharter};
use serde_json::json;

use crate::{
    args::{Everywhere, OrgKeysAt},
    duration,
    failure::Outcome,
    journal, org_keys, org_show, output,
};

/// Runs the command.
pub(crate) fn run(everywhere: &Everywhere) -> Outcome<()> {
    let (chain, _) = org_show::settings(everywhere)?;
    let key_file = org_keys::path(everywhere, &OrgKeysAt { org_keys: None, org_passphrase_file: None }).ok();
    let signed_here = |version: u32| {
        let at = journal::settings_signed_at(key_file.as_deref()?, version)?;
        Some(duration::rfc3339(at.duration_since(UNIX_EPOCH).ok()?.as_secs()))
    };
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let mut before: Option<&Charter> = None;
    for settings in chain.iter() {
        let charter = settings.charter();
        let changes = before.map_or_else(|| first(charter), |before| differences(before, charter));
        let signers = signers(settings);
        let at = signed_here(charter.version);
        values.push(json!({
            "version": charter.version,
            "id": settings.id().to_string(),
            "changes": changes,
            "signed_by": signers,
            "signed_here_at": at,
        }));
        let short = |key: &String| key.chars().take(8).collect::<String>();
        let by = signers.iter().map(short).collect::<Vec<_>>().join(", ");
        for (line, change) in changes.iter().enumerate() {
            let only_first = |text: String| if line == 0 { text } else { String::new() };
            rows.push([
                only_first(format!("version {}", charter.version)),
                change.clone(),
                only_first(by.clone()),
                only_first(at.clone().unwrap_or_else(|| "-".to_owned())),
            ]);
        }
        before = Some(charter);
    }
    output::print(everywhere.format(), json!({ "settings": values }), || {
        output::columns(["SETTINGS", "CHANGE", "SIGNED BY", "SIGNED HERE AT"], &rows)
    });
    Ok(())
}

fn signers(settings: &VerifiedCharter) -> Vec<String> {
    // It was verified: who signed it stands in its bytes.
    UnverifiedCharter::decode(settings.bytes())
        .map(|charter| charter.signers().map(ToString::to_string).collect())
        .unwrap_or_default()
}

fn first(charter: &Charter) -> Vec<String> {
    let mut lines = vec![format!("the org {} is founded", charter.name)];
    lines.extend(charter.admins.iter().map(|a| format!("admin {} added (key {})", a.name, a.key.short())));
    lines.extend(
        charter.gateways.iter().map(|g| format!("gateway {} added, on {}", g.key.short(), g.node.short())),
    );
    lines
}

fn differences(before: &Charter, after: &Charter) -> Vec<String> {
    let mut lines = Vec::new();
    for admin in after.admins.iter().filter(|a| before.admin(&a.key).is_none()) {
        lines.push(format!("admin {} added (key {})", admin.name, admin.key.short()));
    }
    for admin in after.admins.iter() {
        if let Some(old) = before.admin(&admin.key).filter(|old| old.name != admin.name) {
            lines.push(format!("admin {} is now called {}", old.name, admin.name));
        }
    }
    for admin in before.admins.iter().filter(|a| after.admin(&a.key).is_none()) {
        let key = admin.key;
        lines.push(format!(
            "admin {} removed (key {}); {}",
            admin.name,
            key.short(),
            kept(after, |k| *k == key)
        ));
    }
    for gateway in after.gateways.iter().filter(|g| before.gateway(&g.key).is_none()) {
        lines.push(format!("gateway {} added, on {}", gateway.key.short(), gateway.node.short()));
    }
    for gateway in before.gateways.iter().filter(|g| after.gateway(&g.key).is_none()) {
        let key = gateway.key;
        let kept = kept(after, |k| *k == key);
        lines.push(format!("gateway {} removed, on {}; {kept}", key.short(), gateway.node.short()));
    }
    if before.revoke_threshold != after.revoke_threshold {
        lines.push(format!(
            "{} of the admins must revoke, not {}",
            after.revoke_threshold, before.revoke_threshold
        ));
    }
    if before.tls_cas != after.tls_cas {
        lines.push("the TLS CAs changed".to_owned());
    }
    if (&before.root_keys, before.root_threshold) != (&after.root_keys, after.root_threshold) {
        lines.push(format!("{} of {} root keys decide", after.root_threshold, after.root_keys.len()));
    }
    if before.name != after.name {
        lines.push(format!("the org is now called {}", after.name));
    }
    if lines.is_empty() {
        lines.push("nothing that is shown here".to_owned());
    }
    lines
}

fn kept(after: &Charter, is_it: impl Fn(&identity::PublicKey) -> bool) -> String {
    let ends: Vec<_> = after.cuts.iter().filter(|cut| is_it(&cut.key)).map(|cut| cut.tip.short()).collect();
    if ends.is_empty() {
        "nothing that it signed counts any longer".to_owned()
    } else {
        format!("what it signed up to {} still counts", ends.join(" and "))
    }
}
