//! The commands about images that machines boot.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OrgKeysAt;

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Make the image that firmware starts, which enrols the machine
    Preboot(Box<ImagePreboot>),
    /// Make and sign the image behind it, with musterd as its service
    Node(Box<ImageNode>),
    /// Fetch an image that a member passes on, and go on where an earlier try stopped
    Get {
        /// Its BLAKE3 hash [default: the one that machines are to run]
        hash: Option<String>,
        /// The member to ask
        #[arg(long, value_name = "NODE")]
        from: String,
        /// Where to write it; until it is whole, a file beside it that ends in .part
        #[arg(long, value_name = "FILE", default_value = "node.squashfs")]
        out: PathBuf,
    },
    /// Have machines that boot run this node image: this machine's musterd passes it on
    Publish {
        /// Directory with node.squashfs and node.release
        dir: PathBuf,
    },
    /// The passphrase that opens a machine's encrypted disk, from the disk and the org keys
    Recovery(ImageRecovery),
    /// Which node image this machine runs, which it could start, and which it passes on
    Status,
    /// What an image holds of its org, and what the TPM will measure of it
    Verify {
        /// What `muster image` made
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ImagePreboot {
    /// Directory with org.json and the org keys [default: that of the only admin key]
    #[arg(long, value_name = "DIR")]
    pub(crate) org: Option<PathBuf>,
    /// Invite with which machines join at their first start; whoever has the image has it
    #[arg(long, value_name = "FILE")]
    pub(crate) invite: Option<PathBuf>,
    /// Take an invite that lets several machines join without approval
    #[arg(long)]
    pub(crate) bearer: bool,
    /// Put in what a machine with an encrypted disk needs: cryptsetup and mke2fs of this machine
    #[arg(long)]
    pub(crate) persist: bool,
    /// A new encrypted disk opens only with a share that gateways give at each start, of this epoch
    #[arg(long, value_name = "EPOCH", requires = "persist")]
    pub(crate) share: Option<u32>,
    /// Let the last release that was ready start when no gateway is reached: also on a machine that was revoked
    #[arg(long)]
    pub(crate) without_gateway: bool,
    /// Where to write it
    #[arg(long, value_name = "FILE", default_value = "preboot.efi")]
    pub(crate) out: PathBuf,
    /// Do not ask the gateways whether their certificates hold
    #[arg(long)]
    pub(crate) offline: bool,
    /// Key for Secure Boot, PEM
    #[arg(long, value_name = "FILE", requires = "secure_boot_cert")]
    pub(crate) secure_boot_key: Option<PathBuf>,
    /// Its certificate, PEM: the one in the firmware's db
    #[arg(long, value_name = "FILE", requires = "secure_boot_key")]
    pub(crate) secure_boot_cert: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) made_of: MadeOf,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

/// What is taken from this machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Made of")]
pub(crate) struct MadeOf {
    /// Kernel [default: the newest /boot/vmlinuz-*]
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// Its modules [default: /lib/modules/ and the kernel's release]
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: Option<PathBuf>,
    /// One more module, by its name
    #[arg(long, value_name = "NAME")]
    pub(crate) module: Vec<String>,
    /// systemd's stub
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub")]
    pub(crate) stub: PathBuf,
    /// Directory of muster-preboot [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageNode {
    /// Directory with org.json and the org keys [default: that of the only admin key]
    #[arg(long, value_name = "DIR")]
    pub(crate) org: Option<PathBuf>,
    /// Number of this release, higher than those before; a machine that ran a later one may refuse it
    #[arg(long, value_name = "N")]
    pub(crate) release: u32,
    /// Once this release was ready on a machine, start none before this number on it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) minimum: u32,
    /// Directory for node.squashfs and node.release
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// musterd's settings in it [default: state on the machine's disk, keys sealed by its TPM]
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Directory of musterd and muster [default: that of this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
    /// Its first process, which keeps musterd running
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    pub(crate) busybox: PathBuf,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

#[derive(Debug, Args)]
pub(crate) struct ImageRecovery {
    /// The disk or partition, or an image of it
    pub(crate) disk: PathBuf,
    /// Directory with org.json and the org keys [default: that of the only admin key]
    #[arg(long, value_name = "DIR")]
    pub(crate) org: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}
