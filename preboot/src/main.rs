//! muster-preboot: what happens between power and musterd.
//!
//! At the first start it reads an invite, makes this machine's keys, seals them and asks a gateway of
//! the org for admission. At every start it proves the boot key to a gateway, fetches what the org's
//! members hold, and hands it to musterd as bytes in a directory.
//!
//! It trusts what it has pinned: the org's first settings, each later one by the signatures that the
//! one before asks for, and the newest that it has seen, which is sealed with the boot key. It judges
//! no member, makes no key where one was sealed before, and opens no shell.
//!
//! As the first process of an image it does the rest as well, from mounting the kernel's file systems to
//! starting the node image ([`machine`]).

mod attestation;
mod console;
mod failure;
mod files;
mod gateway;
mod keys;
mod machine;
mod pinned;
mod settings;
mod start;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::{console::Console, settings::Arguments};

fn main() -> ExitCode {
    // Both before anything else: the first needs to be alone in the process, the second to be early.
    let quiet = tpm_seal::quiet_tpm_library();
    let hardened = tpm_seal::harden_process();
    let filter = tracing_subscriber::EnvFilter::try_from_env("MUSTER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    tracing::debug!(quiet, ?hardened, "started");
    if machine::is_first_process() {
        return machine::run();
    }
    let arguments = Arguments::parse();
    if arguments.manual {
        let page = clap_mangen::Man::new(Arguments::command()).section("8");
        return page.render(&mut std::io::stdout()).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("muster-preboot: {error}");
            return ExitCode::from(71);
        }
    };
    let mut console = Console::default();
    match runtime.block_on(Box::pin(start::start(&arguments, None, &mut console))) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            console.failure(&failure);
            ExitCode::from(failure.code.exit_status())
        }
    }
}
