//! This machine's keys: what they are, new ones, and the end of old ones.

use core::time::Duration;
use std::{thread, time::Instant};

use control::local::{Answer, KeySet, Keys, Request, Rotation};
use identity::Code;
use serde_json::{Value, json};

use crate::{
    args::Everywhere,
    failure::Outcome,
    local::{Daemon, unexpected},
    output,
    place::Places,
};

/// `key show`.
pub(crate) fn show(everywhere: &Everywhere) -> Outcome<()> {
    let keys = ask(everywhere, &Request::Keys {})?;
    print(everywhere, &keys);
    Ok(())
}

/// `key rotate`.
pub(crate) fn rotate(everywhere: &Everywhere, keep_old: bool, timeout: Duration) -> Outcome<u8> {
    let since = Instant::now();
    ask(everywhere, &Request::RotateKeys { keep_old })?;
    follow(everywhere, if keep_old { Rotation::Kept } else { Rotation::None }, since + timeout)
}

/// `key retire`.
pub(crate) fn retire(everywhere: &Everywhere, timeout: Duration) -> Outcome<u8> {
    let since = Instant::now();
    ask(everywhere, &Request::EndKeys {})?;
    follow(everywhere, Rotation::None, since + timeout)
}

/// Waits for the end of a rotation. musterd begins anew on the way, and does not answer for a moment.
fn follow(everywhere: &Everywhere, end: Rotation, until: Instant) -> Outcome<u8> {
    loop {
        let asked = ask(everywhere, &Request::Keys {});
        let late = Instant::now() >= until;
        match asked {
            Ok(keys) if keys.rotation == end || late => {
                print(everywhere, &keys);
                let done = keys.rotation == end;
                return Ok(if done { 0 } else { Code::RotationUnderWay.exit_status() });
            }
            Err(failure) if late || failure.code() != Code::DaemonNotRunning => return Err(failure),
            Ok(_) | Err(_) => thread::sleep(AGAIN),
        }
    }
}

fn ask(everywhere: &Everywhere, request: &Request) -> Outcome<Keys> {
    let answer = Daemon::connect(&Places::find(everywhere)?.socket)?.ask(request)?;
    let Answer::Keys(keys) = answer else { return Err(unexpected()) };
    Ok(keys)
}

fn print(everywhere: &Everywhere, keys: &Keys) {
    output::print(everywhere.format(), value(keys), || {
        let rows: Vec<_> = keys
            .keys
            .iter()
            .map(|set| {
                let text = set.node.to_string();
                [text.get(..16).unwrap_or_default().to_owned(), state(set).to_owned(), set.change.to_string()]
            })
            .collect();
        let table = output::columns(["KEY", "STATE", "CHANGE"], &rows);
        format!("{table}rotation: {}\n", word(keys.rotation))
    });
}

fn value(keys: &Keys) -> Value {
    let sets = keys.keys.iter().map(|set| {
        json!({
            "key": set.node.to_string(),
            "wireguard_key": set.wireguard.to_string(),
            "boot_key": set.boot.to_string(),
            "change": set.change.to_string(),
            "state": state(set),
        })
    });
    json!({ "rotation": word(keys.rotation), "keys": sets.collect::<Vec<_>>() })
}

const fn state(set: &KeySet) -> &'static str {
    match (set.used, set.valid) {
        (true, true) => "used",
        (true, false) => "used-refused",
        (false, true) => "valid",
        (false, false) => "ended",
    }
}

const fn word(rotation: Rotation) -> &'static str {
    match rotation {
        Rotation::None => "none",
        Rotation::Making => "making",
        Rotation::Telling => "telling",
        Rotation::Proving => "proving",
        Rotation::Kept => "kept",
        Rotation::Ending => "ending",
    }
}

const AGAIN: Duration = Duration::from_millis(100);
