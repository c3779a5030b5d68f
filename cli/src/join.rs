//! `muster join` and `muster leave`: this machine's way into an org and out of it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use control::local::{Answer, Request};
use identity::Code;
use serde_json::json;

use crate::{
    args::{Everywhere, Join, KeyStorage},
    consent::{self, Unasked},
    failure::{Failure, Outcome},
    files, handover, invite,
    local::{self, Daemon},
    output::{self, talk},
    passphrase,
    place::{self, Places},
    program,
};

const PREBOOT: &str = "muster-preboot";
/// `join`.
pub(crate) fn join(everywhere: &Everywhere, args: &Join) -> Outcome<()> {
    let places = Places::find(everywhere)?;
    let text = invite::read(&args.invite)?;
    let checked = invite::check(&text)?;
    if places.state.join("store").exists() || places.state.join(handover::DIRECTORY).exists() {
        return Err(Failure::new(Code::AlreadyEnrolled, format_args!("in {}", places.state.display())));
    }
    files::refuse_open_directory(&places.state)?;
    let storage = args.key_storage.or(places.storage).unwrap_or(KeyStorage::Tpm);
    let device = args.tpm.as_ref().unwrap_or(&places.tpm);
    let mut command = Command::new(program::find(PREBOOT)?);
    command.arg("--state").arg(&places.state).args(["--invite", "-"]);
    match storage {
        KeyStorage::File => command.args(["--key-storage", "file"]),
        KeyStorage::Tpm => command.arg("--tpm").arg(device),
    };
    if places.configured {
        command.arg("--config").arg(everywhere.config_dir.join(place::CONFIG));
    }
    if let Some(name) = &args.name {
        command.args(["--name", name.as_str()]);
    }
    files::create_directory(&places.state, files::SECRET_DIRECTORY)?;
    enrol(command, &text)?;
    let left = places.state.join(handover::DIRECTORY);
    if !left.exists() {
        return Err(Failure::new(
            Code::HandoverRejected,
            format_args!("{PREBOOT} left no {}", left.display()),
        )
        .remedy("Check that muster and muster-preboot are of the same release."));
    }
    if !places.configured {
        files::create_directory(&everywhere.config_dir, 0o755)?;
        let config = config(&places, storage, device);
        files::create(&everywhere.config_dir.join(place::CONFIG), files::PUBLIC, config.as_bytes())?;
    }
    let started = !args.no_start && start(everywhere)?;
    let charter = checked.chain().head().charter();
    let value = json!({
        "org": { "id": checked.org().to_string(), "name": charter.name.as_str() },
        "invite": checked.id().to_string(),
        "state_dir": places.state,
        "started": started,
    });
    output::print(everywhere.format(), value, || format!("joined {}\n", charter.name));
    Ok(())
}

/// `leave`.
pub(crate) fn leave(everywhere: &Everywhere) -> Outcome<()> {
    let places = Places::find(everywhere)?;
    let daemon = Daemon::connect(&places.socket);
    let kept = ["keys", "store", "preboot", handover::DIRECTORY].map(|name| places.state.join(name));
    if daemon.is_err() && !kept.iter().any(|path| path.exists()) {
        return Err(Failure::new(Code::NotEnrolled, format_args!("nothing in {}", places.state.display())));
    }
    let question = "Leave the org? This machine's keys are void from then on and are deleted.";
    consent::ask(everywhere, question, Unasked::Refuse)?;
    let told = match daemon {
        Ok(mut daemon) => match daemon.ask(&Request::Leave {}) {
            Ok(Answer::Left(left)) => Some(left.told),
            Ok(_) => return Err(local::unexpected()),
            // It left before, or it was revoked: what remains is to clean up.
            Err(failure) if matches!(failure.code(), Code::Left | Code::Revoked | Code::NotEnrolled) => None,
            Err(failure) => return Err(failure),
        },
        Err(_) => {
            talk("musterd does not run: if this machine has not left before, ask an admin to revoke it.");
            None
        }
    };
    stop_and_delete(&places, &kept)?;
    let deleted = !kept.iter().any(|path| path.exists());
    let value = json!({ "left": told.is_some(), "members_told": told, "keys_deleted": deleted });
    output::print(everywhere.format(), value, || match told {
        Some(0) => "left the org, which had no other member\n".to_owned(),
        Some(told) => format!("left the org; {told} members have heard it\n"),
        None => "this machine's keys of the org are deleted\n".to_owned(),
    });
    Ok(())
}

/// Stops the service, where systemd runs it.
pub(crate) fn stop_service() -> Outcome<()> {
    if Path::new(place::SYSTEMD).exists() { systemctl(&["disable", "--now", "musterd"]) } else { Ok(()) }
}

fn stop_and_delete(places: &Places, kept: &[PathBuf]) -> Outcome<()> {
    stop_service()?;
    if Daemon::connect(&places.socket).is_ok() {
        talk("Stop musterd, then run `muster leave` again: it deletes this machine's keys.");
        return Ok(());
    }
    for path in kept {
        files::remove_directory(path)?;
    }
    files::remove_if_there(&places.state.join("bundle.pem"))
}

/// Runs preboot with the invite on its stdin: neither argument nor file, which others could read.
fn enrol(mut command: Command, invite: &str) -> Outcome<()> {
    let program = PathBuf::from(command.get_program());
    let failed = |e: std::io::Error| Failure::file(&program, &e);
    command.env_remove(passphrase::ENVIRONMENT).env_remove(passphrase::ORG_ENVIRONMENT);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end before it reads; then its own words say why.
        stdin.write_all(invite.as_bytes()).unwrap_or_default();
    }
    let mut code = None;
    let mut seen = String::new();
    for line in child.stderr.take().into_iter().flat_map(|e| BufReader::new(e).lines()).map_while(Result::ok)
    {
        talk(&line);
        if let Some(found) = line.split_whitespace().find_map(|word| Code::parse(word.trim_end_matches(':')))
        {
            code = Some(found);
            seen = line.trim().to_owned();
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(match code {
        Some(code) => Failure::new(code, seen),
        None => Failure::new(Code::ConnectionLost, format_args!("{} ended: {status}", program.display())),
    })
}

fn config(places: &Places, storage: KeyStorage, device: &Path) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let storage = match storage {
        KeyStorage::Tpm => "tpm",
        KeyStorage::File => "file",
    };
    format!(
        "state_dir = {}\n\n[keys]\nstorage = \"{storage}\"\ntpm = {}\n\n[control]\nsocket = {}\n",
        quoted(&places.state),
        quoted(device),
        quoted(&places.socket),
    )
}

fn start(everywhere: &Everywhere) -> Outcome<bool> {
    if Path::new(place::SYSTEMD).exists() {
        systemctl(&["enable", "--now", "musterd"])?;
        return Ok(true);
    }
    let config = everywhere.config_dir.join(place::CONFIG);
    talk(&format!("No systemd here. Start the service: musterd --config {}", config.display()));
    Ok(false)
}

fn systemctl(arguments: &[&str]) -> Outcome<()> {
    let failed = |why: String| {
        Failure::new(Code::DaemonNotRunning, format_args!("systemctl {}: {why}", arguments.join(" ")))
    };
    let mut command = Command::new("systemctl");
    command
        .args(arguments)
        .env_remove(passphrase::ENVIRONMENT)
        .env_remove(passphrase::ORG_ENVIRONMENT)
        .stdout(Stdio::null());
    let status = command.status().map_err(|e| failed(e.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}
