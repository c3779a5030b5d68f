//! The commands about files that members keep for each other.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Blob {
    /// Have a member keep a file, and go on where an earlier try stopped; prints its hash
    Put {
        /// Name, or the first digits of its key
        node: String,
        /// What it is to keep
        file: PathBuf,
    },
    /// Fetch a file that a member keeps, and go on where an earlier try stopped
    Get {
        /// Name, or the first digits of its key
        node: String,
        /// Its BLAKE3 hash
        hash: String,
        /// Where to write it; until it is whole, a file beside it that ends in .part [default: its hash]
        file: Option<PathBuf>,
    },
    /// What this machine keeps, and for whom
    #[command(alias = "ls")]
    List,
    /// Have a member no longer keep a file that this machine has put
    Remove {
        /// Name, or the first digits of its key
        node: String,
        /// Its BLAKE3 hash
        hash: String,
    },
    /// Keep a file on this machine no longer, whoever put it
    Drop {
        /// Its BLAKE3 hash
        hash: String,
    },
}
