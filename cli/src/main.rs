//! `muster`: everything a person does with an org, from founding it to shutting a machine out.
//!
//! Data goes to stdout in the form asked for, talk to stderr, and every failure has a code, what was
//! seen and what to do. No secret is taken as an argument or printed, save the invite that was asked
//! for. What an admin signs is on disk before it leaves the machine, so that a crash never makes two
//! different changes at one place.

mod admin;
mod archive;
mod args;
mod author;
mod backup;
mod blob;
mod bundle;
mod config;
mod connect;
mod connection;
mod consent;
mod coverage;
mod doctor;
mod duration;
mod events;
mod explain;
mod export;
mod failure;
mod files;
mod founding;
mod gateway;
mod handover;
mod image;
mod invite;
mod join;
mod journal;
mod key;
mod key_file;
mod keys;
mod lab;
mod local;
mod machine;
mod manual;
mod member;
mod member_change;
mod org_create;
mod org_keys;
mod org_log;
mod org_show;
mod output;
mod passphrase;
mod pending;
mod place;
mod policy;
mod profile;
mod program;
mod progress;
mod random;
mod recover;
mod recovery_sheet;
mod remote;
mod removal;
mod revoke;
mod services;
mod settings;
mod share;
mod status;
mod tls_keys;
mod tpm;
mod trace;
mod view;
mod yaml;

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};
use identity::Code;

use crate::{
    args::{
        Admin, Cli, Command, Debug, Gateway, Invite, Key, Member, Names, Org, Pending, Policy, Session,
        TpmCommand,
    },
    failure::{Failure, Outcome},
    output::Format,
};

fn main() -> ExitCode {
    // Both before anything else: they want to be alone in the process. That a system allows neither
    // is no reason not to work on it.
    let _quiet = tpm_seal::quiet_tpm_library();
    let _hardened = tpm_seal::harden_process();
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    cli.everywhere.make_absolute();
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
    let everywhere = &cli.everywhere;
    let done = match &cli.command {
        Command::Org(Org::Create(args)) => org_create::run(everywhere, args),
        Command::Org(Org::Show) => org_show::run(everywhere),
        Command::Org(Org::Log) => org_log::run(everywhere),
        Command::Invite(Invite::Create(args)) => invite::create(everywhere, args),
        Command::Invite(Invite::Inspect { invite }) => invite::inspect(everywhere, invite),
        Command::Invite(Invite::List) => invite::list(everywhere),
        Command::Invite(Invite::Cancel { id, void_from, void_all }) => {
            invite::cancel(everywhere, id, void_from.as_deref(), *void_all)
        }
        Command::Join(args) => join::join(everywhere, args),
        Command::Leave => join::leave(everywhere),
        Command::Status { watch: true, .. } => status::watch(everywhere),
        Command::Status { check, .. } => return status::run(everywhere, *check),
        Command::Doctor => return doctor::run(everywhere),
        Command::Backup(args) => backup::backup(everywhere, args),
        Command::Restore(args) => backup::restore(everywhere, args),
        Command::Config(command) => return config::run(everywhere, command),
        Command::Events(args) => events::run(everywhere, args),
        Command::Export(what) => export::run(everywhere, what),
        Command::Names(Names::Hosts { write }) => export::names(everywhere, write.as_deref()),
        Command::Revoke(args) => return revoke::run(everywhere, args),
        Command::Suspend(args) => return member_change::suspend(everywhere, args),
        Command::Resume(args) => return member_change::resume(everywhere, args),
        Command::Member(Member::Rename { node, name, waiting }) => {
            return member_change::rename(everywhere, node, name, waiting);
        }
        Command::Member(Member::Role(args)) => return member_change::role(everywhere, args),
        Command::Member(Member::Label(args)) => return member_change::label(everywhere, args),
        Command::Pending(Pending::List) => pending::list(everywhere),
        Command::Pending(Pending::Approve { node, waiting }) => {
            return pending::approve(everywhere, node, waiting);
        }
        Command::Pending(Pending::Reject { node, note, waiting }) => {
            return pending::reject(everywhere, node, note, waiting);
        }
        Command::Admin(Admin::Init(args)) => admin::init(everywhere, args),
        Command::Admin(Admin::Add(args)) => return admin::add(everywhere, args),
        Command::Admin(Admin::Remove(args)) => return admin::remove(everywhere, args),
        Command::Admin(Admin::List) => admin::list(everywhere),
        Command::Admin(Admin::Log { who }) => admin::log(everywhere, who),
        Command::Gateway(Gateway::Init(args)) => gateway::init(everywhere, args),
        Command::Gateway(Gateway::Share(args)) => share::run(everywhere, args),
        Command::Gateway(Gateway::Add(args)) => return gateway::add(everywhere, args),
        Command::Gateway(Gateway::Remove(args)) => return gateway::remove(everywhere, args),
        Command::Gateway(Gateway::List) => gateway::list(everywhere),
        Command::Member(Member::List { all }) => member::list(everywhere, *all),
        Command::Member(Member::Show { node }) => member::show(everywhere, node),
        Command::Policy(Policy::Check(file)) => policy::check(everywhere, file),
        Command::Policy(Policy::Test(file)) => return policy::test(everywhere, file),
        Command::Policy(Policy::Diff(file)) => policy::diff(everywhere, file),
        Command::Policy(Policy::Apply { file, waiting }) => return policy::apply(everywhere, file, waiting),
        Command::Policy(Policy::Show) => policy::show(everywhere),
        Command::Trace(args) => return trace::run(everywhere, args),
        Command::Key(Key::Show) => key::show(everywhere),
        Command::Key(Key::Rotate { keep_old, timeout }) => {
            return key::rotate(everywhere, *keep_old, *timeout);
        }
        Command::Key(Key::Recover { join }) => recover::run(everywhere, join.as_deref()),
        Command::Key(Key::Retire { timeout }) => return key::retire(everywhere, *timeout),
        Command::Session(Session::List) => machine::sessions(everywhere),
        Command::Ping { node, count } => machine::ping(everywhere, node, *count),
        Command::Link { node } => machine::link(everywhere, node),
        Command::Connect(args) => connect::run(everywhere, args),
        Command::Ssh(args) => return connect::ssh(everywhere, args),
        Command::Whois { address } => services::whois(everywhere, address),
        Command::Expose(args) => services::run(everywhere, args),
        Command::Blob(command) => blob::run(everywhere, command),
        Command::Image(command) => image::run(everywhere, command),
        Command::Tpm(TpmCommand::Status) => return tpm::status(everywhere),
        Command::Tpm(TpmCommand::Plan { uki }) => return tpm::plan(everywhere, uki),
        Command::Debug(Debug::Why { reference }) => machine::why(everywhere, reference),
        Command::Debug(Debug::Bundle(args)) => bundle::run(everywhere, args),
        Command::Debug(Debug::Answer) => connection::answer(everywhere),
        Command::Debug(Debug::Connection(args)) => return connection::run(everywhere, args),
        Command::Lab(args) => lab::run(everywhere, args),
        Command::Explain { code } => explain::run(everywhere.format(), code.as_deref()),
        Command::Completion { shell } => {
            manual::completion(*shell);
            Ok(())
        }
        Command::Manual { directory } => manual::write(directory),
    };
    done.map(|()| 0)
}

/// Help and version are answers; everything else is a usage error in our own form.
fn not_parsed(error: &clap::Error) -> ExitCode {
    let bare = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if bare || matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is no failure of ours.
        error.print().unwrap_or_default();
        return ExitCode::from(if bare { Code::Usage.exit_status() } else { 0 });
    }
    let rendered = error.render().to_string();
    let seen = rendered.trim().strip_prefix("error: ").unwrap_or_else(|| rendered.trim());
    let seen = seen.lines().map(|line| line.trim().trim_start_matches("tip: "));
    let seen: Vec<&str> = seen.filter(|l| !l.is_empty() && !l.starts_with("For more information")).collect();
    output::print_failure(Format::Table, &Failure::new(Code::Usage, seen.join("\n")));
    ExitCode::from(Code::Usage.exit_status())
}
