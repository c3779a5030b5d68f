//! `muster`: everything a person does with an org, from founding it to shutting a machine out.
//!
//! Data goes to stdout in the form asked for, talk to stderr, and every failure has a code, what was
//! seen and what to do. No secret is taken as an argument or printed, save the invite that was asked
//! for. What an admin signs is on disk before it leaves the machine, so that a crash never makes two
//! different changes at one place.

mod args;
mod author;
mod duration;
mod explain;
mod failure;
mod files;
mod founding;
mod handover;
mod invite;
mod journal;
mod key_file;
mod keys;
mod local;
mod org_create;
mod output;
mod passphrase;
mod place;
mod profile;
mod random;
mod recovery_sheet;
mod remote;
mod tls_keys;
mod view;
mod yaml;

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};
use identity::Code;

use crate::{
    args::{Cli, Command, Invite, Org},
    failure::{Failure, Outcome},
    output::Format,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let format = cli.everywhere.format();
    match run(&cli) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            output::print_failure(format, &failure);
            ExitCode::from(failure.code().exit_status().max(1))
        }
    }
}

fn run(cli: &Cli) -> Outcome<u8> {
    let format = cli.everywhere.format();
    match &cli.command {
        Command::Explain { code } => explain::run(format, code.as_deref()).map(|()| 0),
        Command::Org(Org::Create(args)) => org_create::run(&cli.everywhere, args).map(|()| 0),
        Command::Invite(Invite::Create(args)) => invite::create(&cli.everywhere, args).map(|()| 0),
        Command::Invite(Invite::Inspect { invite }) => invite::inspect(&cli.everywhere, invite).map(|()| 0),
        Command::Invite(Invite::List) => invite::list(&cli.everywhere).map(|()| 0),
        Command::Invite(Invite::Cancel { id }) => invite::cancel(&cli.everywhere, id).map(|()| 0),
        _ => Ok(1),
    }
}

/// Help and version are answers; everything else is a usage error in our own form.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let rendered = error.render().to_string();
    let seen = rendered.trim().strip_prefix("error: ").unwrap_or_else(|| rendered.trim());
    let seen: Vec<&str> = seen.lines().filter(|l| !l.trim().is_empty()).collect();
    output::print_failure(Format::Table, &Failure::new(Code::Usage, seen.join("\n")));
    ExitCode::from(Code::Usage.exit_status())
}
