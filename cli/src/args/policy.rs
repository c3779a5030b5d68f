//! The commands for what members may do to each other.

use clap::{Args, Subcommand};

use super::Waiting;

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Whether a policy file is right, tests included; works offline
    Check(PolicyFileAt),
    /// Run the tests in a policy file, and say how each went
    Test(PolicyFileAt),
    /// What a policy file would change in the org
    Diff(PolicyFileAt),
    /// Sign a policy file's rules for the org; refused while a test in it fails
    Apply {
        #[command(flatten)]
        file: PolicyFileAt,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// The org's policy, as a file
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyFileAt {
    /// The file, or `-` for stdin
    #[arg(value_name = "FILE")]
    pub(crate) path: std::path::PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Who asks: name, or the first digits of its key
    pub(crate) from: String,
    /// Of whom
    pub(crate) to: String,
    /// For what, as in `muster expose ACTION`
    pub(crate) action: String,
}
