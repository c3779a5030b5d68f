//! The commands about who holds a role in the org.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use identity::{Name, PublicKey};

use super::Waiting;

/// The org's own keys, for what changes its settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "Org keys")]
pub(crate) struct OrgKeysAt {
    /// File with the org's keys [default: org-keys.age beside the admin key]
    #[arg(long, value_name = "FILE", env = "MUSTER_ORG_KEYS", hide_env_values = true)]
    pub(crate) org_keys: Option<PathBuf>,
    /// File whose first line is their passphrase, if it is another [also: MUSTER_ORG_PASSPHRASE]
    #[arg(long, value_name = "FILE")]
    pub(crate) org_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Make an admin key on this device; it counts once the holder of the org keys has added it
    Init(AdminInit),
    /// Make somebody's key an admin key of the org
    Add(AdminAdd),
    /// Take an admin key away; what it signed so far counts, unless it is said otherwise
    Remove(AdminRemove),
    /// All admins
    #[command(alias = "ls")]
    List,
    /// What an admin's key has signed, also a removed one's
    Log {
        /// Name, or the first digits of the key
        #[arg(value_name = "ADMIN")]
        who: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AdminInit {
    /// Name of the admin and the device, as `anna-laptop`: one key belongs to one device
    #[arg(value_parser = Name::parse)]
    pub(crate) name: Name,
    /// org.json of another admin of the org; it holds no secret
    #[arg(long, value_name = "FILE")]
    pub(crate) org: PathBuf,
    /// Directory for the key file [default: $XDG_CONFIG_HOME/muster/ORG]
    #[arg(long, value_name = "DIR")]
    pub(crate) admin_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AdminAdd {
    /// Name of the admin and the device
    #[arg(value_parser = Name::parse)]
    pub(crate) name: Name,
    /// The public key that `muster admin init` printed there
    #[arg(long, value_name = "HEX", value_parser = key)]
    pub(crate) key: PublicKey,
    /// How many admins must revoke a machine from now on
    #[arg(long, value_name = "N")]
    pub(crate) to_revoke: Option<u8>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

#[derive(Debug, Args)]
pub(crate) struct AdminRemove {
    /// Name, or the first digits of the key
    #[arg(value_name = "ADMIN")]
    pub(crate) who: String,
    /// For a stolen key: nothing that it ever signed counts, its revocations included
    #[arg(long, conflicts_with = "void_from")]
    pub(crate) void_all: bool,
    /// For a stolen key: this change and what the key signed after it do not count; give the first wrong
    /// revocation and the first wrong other change, as `muster admin log` shows them
    #[arg(long, value_name = "CHANGE")]
    pub(crate) void_from: Vec<String>,
    /// The key of this very device is meant
    #[arg(long)]
    pub(crate) this_device: bool,
    /// How many admins must revoke a machine from now on
    #[arg(long, value_name = "N")]
    pub(crate) to_revoke: Option<u8>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Gateway {
    /// Prepare this member to be a gateway: its musterd makes the role's key
    Init(GatewayInit),
    /// Make a member a gateway of the org and write its TLS certificate
    Add(GatewayAdd),
    /// Take the role from a gateway; machines that it let in stay, unless it is said otherwise
    Remove(GatewayRemove),
    /// Give machines that start the share of their encrypted disk's key, or give none
    Share(GatewayShare),
    /// All gateways
    #[command(alias = "ls")]
    List,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayShare {
    /// Which key: as in `muster image preboot --share`, and the same on every gateway
    #[arg(long, value_name = "N", required_unless_present = "off")]
    pub(crate) epoch: Option<u32>,
    /// Give none, and forget the keys; the org keys make them anew
    #[arg(long, conflicts_with = "epoch")]
    pub(crate) off: bool,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayInit {
    /// Where machines that join will find this one; wss://HOST:PORT behind an edge that opens TLS
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayAdd {
    /// The line that `muster gateway init` printed on the member, a file with it, or `-` for stdin
    pub(crate) request: String,
    /// Write the certificate to a new file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

#[derive(Debug, Args)]
pub(crate) struct GatewayRemove {
    /// Name of the member, or the first digits of its key or of the gateway's key
    pub(crate) gateway: String,
    /// For a stolen key: no machine that it let in is a member any longer
    #[arg(long, conflicts_with = "void_from")]
    pub(crate) void_all: bool,
    /// For a stolen key: this machine, and all that the gateway let in after it, are out
    #[arg(long, value_name = "NODE")]
    pub(crate) void_from: Option<String>,
    /// It is the last gateway
    #[arg(long)]
    pub(crate) last: bool,
    /// Its address, to be struck off the addresses that this admin gives out
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

fn key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex(text).map_err(|why| why.to_string())
}
