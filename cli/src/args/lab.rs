//! Machines that are not there.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Lab {
    #[command(subcommand)]
    pub(crate) command: LabCommand,
    /// Where the lab lies [default: muster/lab below $XDG_STATE_HOME, or below ~/.local/state]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Found an org on machines that are network namespaces; they stay until `down`
    Up(LabUp),
    /// The machines, who is connected with whom, and what is apart
    Status,
    /// Run a command on one of the machines
    Exec {
        /// n1, n2, ..
        machine: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Let nothing pass between these machines and the others
    Partition {
        /// n1,n2,..
        #[arg(value_delimiter = ',', required = true)]
        machines: Vec<String>,
    },
    /// Let everything pass again
    Heal,
    /// End it, and remove all of it
    Down,
    /// What `up` runs inside
    #[command(hide = true)]
    Hold(LabUp),
}

#[derive(Debug, Args)]
pub(crate) struct LabUp {
    /// Machines of the org, the first one its gateway
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) nodes: u16,
    /// Give each a TPM, emulated, that seals its keys
    #[arg(long)]
    pub(crate) swtpm: bool,
    /// Directory of musterd, muster-gateway and muster-preboot [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
}
