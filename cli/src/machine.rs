//! What is asked of the musterd of this machine and of nobody else: sessions, ping, link, and why.

use core::time::Duration;

use control::local::{Answer, Opened, Request};
use serde_json::json;

use crate::{
    args::Everywhere,
    duration,
    failure::Outcome,
    local::{Daemon, unexpected},
    output,
    place::Places,
};

fn ask(everywhere: &Everywhere, request: &Request) -> Outcome<Answer> {
    Daemon::connect(&Places::find(everywhere)?.socket)?.ask(request)
}

/// `session list`.
pub(crate) fn sessions(everywhere: &Everywhere) -> Outcome<()> {
    let Answer::Sessions(sessions) = ask(everywhere, &Request::Sessions {})? else {
        return Err(unexpected());
    };
    let opened = |opened| match opened {
        Opened::Here => "here",
        Opened::There => "there",
    };
    let values = sessions.iter().map(|s| {
        json!({
            "name": s.name,
            "key": s.node.to_string(),
            "action": s.action,
            "opened": opened(s.opened),
            "up_ms": s.up_ms,
            "reference": s.reference,
        })
    });
    let value = json!({ "sessions": values.collect::<Vec<_>>() });
    output::print(everywhere.format(), value, || {
        let rows: Vec<_> = sessions
            .iter()
            .map(|s| {
                [
                    s.name.clone(),
                    s.action.clone(),
                    opened(s.opened).to_owned(),
                    duration::short(Duration::from_millis(s.up_ms)),
                    s.reference.clone(),
                ]
            })
            .collect();
        output::columns(["MEMBER", "ACTION", "OPENED", "UP", "REFERENCE"], &rows)
    });
    Ok(())
}

/// `ping`.
pub(crate) fn ping(everywhere: &Everywhere, node: &str, count: u32) -> Outcome<()> {
    let request = Request::Ping { node: node.to_owned(), count };
    let Answer::Ping(ping) = ask(everywhere, &request)? else { return Err(unexpected()) };
    let value = json!({
        "name": ping.name,
        "key": ping.node.to_string(),
        "address": ping.address.to_string(),
        "connect_us": ping.connect_us,
        "auth_us": ping.auth_us,
        "echo_us": ping.echo_us,
    });
    output::print(everywhere.format(), value, || {
        let ms = |us: u64| format!("{}.{:03} ms", us / 1_000, us % 1_000);
        let mut rows =
            vec![["connect".to_owned(), ms(ping.connect_us)], ["proof of keys".to_owned(), ms(ping.auth_us)]];
        rows.extend(ping.echo_us.iter().enumerate().map(|(i, &us)| [format!("echo {}", i + 1), ms(us)]));
        output::columns([&ping.name, &ping.address.to_string()], &rows)
    });
    Ok(())
}

/// `link`.
pub(crate) fn link(everywhere: &Everywhere, node: &str) -> Outcome<()> {
    let request = Request::Link { node: node.to_owned() };
    let Answer::Linked(linked) = ask(everywhere, &request)? else { return Err(unexpected()) };
    let value = json!({
        "name": linked.name,
        "key": linked.node.to_string(),
        "address": linked.address.to_string(),
        "already": linked.already,
    });
    output::print(everywhere.format(), value, || format!("link to {} is up\n", linked.name));
    Ok(())
}

/// `debug why`.
pub(crate) fn why(everywhere: &Everywhere, reference: &str) -> Outcome<()> {
    let request = Request::Why { reference: reference.to_owned() };
    let Answer::Why(why) = ask(everywhere, &request)? else { return Err(unexpected()) };
    let code = why.code.0;
    let at = duration::rfc3339(why.at_unix_ms / 1_000);
    let key = why.key.map(|key| key.to_string());
    let value = json!({
        "reference": why.reference,
        "code": code.to_string(),
        "title": code.title(),
        "detail": why.detail,
        "remedy": code.remedy(),
        "key": key,
        "name": why.name,
        "action": why.action,
        "source": why.source,
        "at": at,
        "at_unix_ms": why.at_unix_ms,
    });
    output::print(everywhere.format(), value, || {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        output::columns(
            [&code.to_string(), code.title()],
            &[
                ["seen".into(), or_dash(&why.detail)],
                ["who".into(), or_dash(why.name.as_deref().unwrap_or_default())],
                ["key".into(), key.clone().unwrap_or_else(|| "none was proved".into())],
                ["asked for".into(), or_dash(&why.action)],
                ["from".into(), or_dash(&why.source)],
                ["when".into(), at.clone()],
                ["do".into(), code.remedy().into()],
            ],
        )
    });
    Ok(())
}
