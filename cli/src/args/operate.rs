//! Looking after a machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Whether the settings of musterd and a gateway are in order; every mistake at once
    Check {
        /// This file instead, with the drop-ins beside it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// What is set, and where
    Show {
        /// This file instead, with the drop-ins beside it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Every setting, also those left at their defaults
        #[arg(long)]
        effective: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// New file for it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Encrypt it to this key of age; may be given several times
    #[arg(long, value_name = "age1..")]
    pub(crate) to: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// What `muster backup` wrote
    pub(crate) file: PathBuf,
    /// File with the age key that it was encrypted to
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// New file for it [default: muster-bundle-HOST-DATE.tar.gz here]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Encrypt it to this key of age; may be given several times
    #[arg(long, value_name = "age1..")]
    pub(crate) to: Vec<String>,
}
