//! Programs that know nothing of muster.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use control::local::LocalAddress;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Expose {
    #[command(subcommand)]
    pub(crate) command: Option<ExposeCommand>,
    /// Name under which members ask for it, such as `ssh` or `postgres`
    #[arg(required = true)]
    pub(crate) action: Option<String>,
    /// Where the program listens: 127.0.0.1:PORT, or unix:/PATH
    #[arg(long, value_name = "ADDR", required = true)]
    pub(crate) to: Option<LocalAddress>,
    /// Tell it who the peer is, by a PROXY protocol header, version 2
    #[arg(long)]
    pub(crate) proxy_protocol: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExposeCommand {
    /// What this machine offers
    #[command(alias = "ls")]
    List,
    /// Offer it no longer, and end its sessions
    Remove {
        /// The name under which members ask for it
        action: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Name, or the first digits of its key
    pub(crate) node: String,
    /// The name under which it offers the program
    pub(crate) action: String,
    /// Instead of stdin and stdout: for every connection to this address
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<LocalAddress>,
}

#[derive(Debug, Args)]
pub(crate) struct Ssh {
    /// Name, or the first digits of its key; with USER@ before it if need be
    pub(crate) node: String,
    /// A command to run there; after `--` also options of ssh
    #[arg(trailing_var_arg = true)]
    pub(crate) arguments: Vec<OsString>,
}
