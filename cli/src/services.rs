//! `muster expose` and `muster whois`.

use control::{
    local::{Answer, Request, Service},
    text::Text,
};
use serde_json::json;

use crate::{
    args::{Everywhere, Expose, ExposeCommand},
    failure::{Failure, Outcome},
    local::{self, Daemon},
    output,
    place::Places,
};

pub(crate) fn run(everywhere: &Everywhere, args: &Expose) -> Outcome<()> {
    let request = match (&args.command, &args.action, &args.to) {
        (Some(ExposeCommand::List), _, _) => Request::Services {},
        (Some(ExposeCommand::Remove { action }), _, _) => Request::Unexpose { action: action.clone() },
        (None, Some(action), Some(to)) => Request::Expose {
            action: action.clone(),
            to: Text(to.clone()),
            proxy_protocol: args.proxy_protocol,
        },
        (None, _, _) => return Err(Failure::usage("a name and --to are wanted")),
    };
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let Answer::Services(services) = daemon.ask(&request)? else { return Err(local::unexpected()) };
    let value = json!({ "services": services.iter().map(|service| json!({
        "action": service.action,
        "to": service.to.to_string(),
        "proxy_protocol": service.proxy_protocol,
        "declared": service.declared,
        "sessions": service.sessions,
    })).collect::<Vec<_>>() });
    output::print(everywhere.format(), value, || table(&services));
    if matches!(request, Request::Expose { .. }) {
        output::talk("Members that a policy lets use it reach it now; nobody else does.");
    }
    Ok(())
}

fn table(services: &[Service]) -> String {
    let row = |service: &Service| {
        [
            service.action.clone(),
            service.to.to_string(),
            if service.proxy_protocol { "PROXY v2" } else { "nothing" }.to_owned(),
            if service.declared { "muster.toml" } else { "command" }.to_owned(),
            service.sessions.to_string(),
        ]
    };
    let rows: Vec<_> = services.iter().map(row).collect();
    output::columns(["SERVICE", "TO", "IS TOLD", "BY", "SESSIONS"], &rows)
}

pub(crate) fn whois(everywhere: &Everywhere, address: &str) -> Outcome<()> {
    let mut daemon = Daemon::connect(&Places::find(everywhere)?.socket)?;
    let Answer::Whois(whois) = daemon.ask(&Request::Whois { address: address.to_owned() })? else {
        return Err(local::unexpected());
    };
    let list = |tags: &[Text<identity::Tag>]| tags.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (roles, labels) = (list(&whois.roles), list(&whois.labels));
    let state = crate::view::status_word(whois.status);
    let value = json!({
        "name": whois.name,
        "key": whois.node.to_string(),
        "address": whois.address,
        "state": state,
        "roles": roles,
        "labels": labels,
        "action": whois.action,
        "reference": whois.reference,
    });
    output::print(everywhere.format(), value, || {
        let mut rows = vec![
            ["name".to_owned(), whois.name.clone()],
            ["key".to_owned(), whois.node.to_string()],
            ["address".to_owned(), whois.address.to_string()],
            ["state".to_owned(), state.to_owned()],
            ["roles".to_owned(), roles.join(" ")],
            ["labels".to_owned(), labels.join(" ")],
        ];
        rows.extend(whois.action.clone().map(|action| ["service".to_owned(), action]));
        rows.extend(whois.reference.clone().map(|reference| ["reference".to_owned(), reference]));
        rows.iter().map(|[head, cell]| format!("{head:9}  {cell}").trim_end().to_owned() + "\n").collect()
    });
    Ok(())
}
