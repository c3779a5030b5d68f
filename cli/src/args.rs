//! The command line: every command, option and word of help.

use core::time::Duration;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use identity::{Name, Tag, TpmId};
use serde::Deserialize;

pub(crate) use blob::Blob;
pub(crate) use image::{Image, ImageNode, ImagePreboot, ImageRecovery};
pub(crate) use lab::{Lab, LabCommand, LabUp};
pub(crate) use members::{Edit, Member, Pending, Resume, Suspend, TagChange};
pub(crate) use operate::{Backup, Bundle, Config, Restore};
pub(crate) use policy::{Policy, PolicyFileAt, Trace};
pub(crate) use roles::{
    Admin, AdminAdd, AdminInit, AdminRemove, Gateway, GatewayAdd, GatewayInit, GatewayRemove, GatewayShare,
    OrgKeysAt,
};

pub(crate) use services::{Connect, Expose, ExposeCommand, Ssh};

use crate::{duration, output::Format};

mod blob;
mod image;
mod lab;
mod members;
mod operate;
mod policy;
mod roles;
mod services;

const TOP: &str = "\
Who is this machine, and is it still one of us?

The five that matter:
  muster org create NAME --gateway HOST:PORT   found an org on its first machine
  muster invite create                         make one line that lets a machine join
  muster join INVITE                           join with that line
  muster status                                is it well
  muster revoke NODE                           shut a machine out, everywhere, at once

All commands:
{subcommands}

Options:
{options}

Exit status: 0 done; 2 usage; 65 bad data; 69 not running; 73 exists already; 74 file; 75 try again
or incomplete; 76 protocol; 77 refused; 78 configuration. `muster explain MU-nnnn` explains a code.
";

#[derive(Debug, Parser)]
#[command(name = "muster", version, help_template = TOP, disable_help_subcommand = false)]
#[command(infer_subcommands = false, propagate_version = true, subcommand_required = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) everywhere: Everywhere,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Everywhere {
    /// Form of the data on stdout
    #[arg(short, long, global = true, value_name = "FORM", default_value = "table")]
    pub(crate) output: Format,
    /// Short for `-o json`
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Do it without asking
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Never prompt: fail where something is missing
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
    /// File whose first line is the passphrase [also: MUSTER_PASSPHRASE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Admin key file [default: the only one below $XDG_CONFIG_HOME/muster]
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_ADMIN", hide_env_values = true)]
    pub(crate) admin: Option<PathBuf>,
    /// Directory of muster.toml
    #[arg(long, global = true, value_name = "DIR", env = "MUSTER_CONFIG_DIR", default_value = "/etc/muster")]
    pub(crate) config_dir: PathBuf,
    /// State directory [default: from muster.toml, or /var/lib/muster]
    #[arg(long, global = true, value_name = "DIR", env = "MUSTER_STATE_DIR", hide_env_values = true)]
    pub(crate) state: Option<PathBuf>,
    /// Control socket of musterd [default: from muster.toml, or /run/muster/musterd.sock]
    #[arg(long, global = true, value_name = "FILE", env = "MUSTER_CONTROL_SOCKET", hide_env_values = true)]
    pub(crate) socket: Option<PathBuf>,
}

impl Everywhere {
    pub(crate) const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    /// Paths go into files that daemons read, whose working directory is another.
    pub(crate) fn make_absolute(&mut self) {
        let paths =
            [Some(&mut self.config_dir), self.state.as_mut(), self.socket.as_mut(), self.admin.as_mut()];
        for path in paths.into_iter().flatten() {
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Found an org; show its settings
    #[command(subcommand)]
    Org(Org),
    /// Let machines join
    #[command(subcommand)]
    Invite(Invite),
    /// Join this machine to an org and start the service
    Join(Join),
    /// Leave the org for good; this machine's keys are void from then on
    Leave,
    /// Whether this machine and its org are well
    Status {
        /// Answer by exit status: 0 healthy, 1 degraded, 2 down, 3 not enrolled
        #[arg(long)]
        check: bool,
        /// Show it anew every two seconds, until interrupted
        #[arg(long, conflicts_with = "check")]
        watch: bool,
    },
    /// Whether everything that this machine needs is in order, step by step
    Doctor,
    /// What happened lately; with --follow, what happens
    Events(EventsArgs),
    /// Shut a machine out for good, everywhere, and see who has applied it
    Revoke(Revoke),
    /// Shut a machine out until it is resumed
    Suspend(Suspend),
    /// Let a suspended machine in again
    Resume(Resume),
    /// What waits for more admins
    #[command(subcommand)]
    Pending(Pending),
    /// Who may decide over members
    #[command(subcommand)]
    Admin(Admin),
    /// Which members let machines in
    #[command(subcommand)]
    Gateway(Gateway),
    /// Who is in the org, and what it is called and for
    #[command(subcommand)]
    Member(Member),
    /// What members may do to each other, beyond what muster itself does
    #[command(subcommand)]
    Policy(Policy),
    /// Whether one member may do something to another, and by which rule
    Trace(Trace),
    /// Members as hosts, inventory or known hosts
    #[command(subcommand)]
    Export(Export),
    /// Names for programs of this machine
    #[command(subcommand)]
    Names(Names),
    /// This machine's keys
    #[command(subcommand)]
    Key(Key),
    /// What is connected to this machine
    #[command(subcommand)]
    Session(Session),
    /// Reach a member and measure each step
    Ping {
        /// Name, or the first digits of its key
        node: String,
        /// Echoes to send
        #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
        count: u32,
    },
    /// Bring up the link to a member
    #[command(hide = true)]
    Link {
        /// Name, or the first digits of its key
        node: String,
    },
    /// Offer a program of this machine to members that a policy lets use it
    Expose(Expose),
    /// Reach a program that a member offers
    Connect(Connect),
    /// Log in to a member that offers `ssh`
    Ssh(Ssh),
    /// Who is behind an address
    Whois {
        /// An overlay address, or ADDRESS:PORT of a connection as the program sees it
        address: String,
    },
    /// Files that members keep for each other
    #[command(subcommand)]
    Blob(Blob),
    /// What machines boot
    #[command(subcommand)]
    Image(Image),
    /// What this machine's keys are sealed to
    #[command(subcommand)]
    Tpm(TpmCommand),
    /// Find out what went wrong
    #[command(subcommand)]
    Debug(Debug),
    /// Keep this machine's place in its org for the day its disk is gone
    Backup(Backup),
    /// Put back what `muster backup` kept, on the same machine
    Restore(Restore),
    /// The settings of this machine's musterd
    #[command(subcommand)]
    Config(Config),
    /// An org to try things with, on machines that are network namespaces
    Lab(Lab),
    /// What a code means and what to do; works offline
    Explain {
        /// MU-nnnn; all codes without it
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
    /// What a shell needs to complete these commands, to stdout
    Completion {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Write the pages of the manual
    #[command(hide = true)]
    Manual {
        /// Into this directory
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on until interrupted; a line for each event
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what happens from now on
    #[arg(long, requires = "follow")]
    pub(crate) new: bool,
    /// Command for the shell, run for each event, which it reads as JSON; with MUSTER_EVENT set
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Export {
    /// Lines for /etc/hosts
    Hosts,
    /// An inventory: all members, and a group for each role and label
    Ansible,
    /// Lines for ssh's known_hosts, asked of each member's sshd through its tunnel
    SshKnownHosts {
        /// Where sshd listens
        #[arg(long, default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Names {
    /// NAME.ORG.internal of every member, as lines for /etc/hosts
    Hosts {
        /// Put them into this file, in a block that is replaced the next time
        #[arg(long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Org {
    /// Found an org on its first machine, which becomes its first member and gateway
    Create(OrgCreate),
    /// Show the org's settings: admins, gateways, TLS CAs
    Show,
    /// Every version of the org's settings: what it changed and which keys signed it
    Log,
}

#[derive(Debug, Args)]
pub(crate) struct OrgCreate {
    /// Name of the org: a-z, 0-9 and inner hyphens
    #[arg(value_parser = Name::parse)]
    pub(crate) name: Name,
    /// Where machines that join will find this one; wss://HOST:PORT behind an edge that opens TLS
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gateway: String,
    /// Name of this machine [default: its host name]
    #[arg(long, value_name = "NAME", value_parser = Name::parse)]
    pub(crate) node_name: Option<Name>,
    /// Name of the admin [default: admin]
    #[arg(long, value_name = "NAME", value_parser = Name::parse)]
    pub(crate) admin_name: Option<Name>,
    /// Where this machine keeps its keys [default: from muster.toml, or tpm]
    #[arg(long, value_name = "WHERE")]
    pub(crate) key_storage: Option<KeyStorage>,
    /// TPM device [default: from muster.toml, or /dev/tpmrm0]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) tpm: Option<PathBuf>,
    /// Directory for the key files [default: $XDG_CONFIG_HOME/muster/NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) admin_dir: Option<PathBuf>,
    /// A passphrase of its own for the admin key file
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_passphrase_file: Option<PathBuf>,
    /// Write the recovery sheet there instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) recovery_sheet: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyStorage {
    /// Sealed by this machine's TPM
    Tpm,
    /// A file: whoever copies it is this machine. Every member sees that it is so
    File,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Invite {
    /// Make an invite: one line on stdout to paste into `muster join`
    Create(InviteCreate),
    /// Show what an invite says, offline
    Inspect {
        /// The line, a file with it, or `-` for stdin
        invite: String,
    },
    /// All invites and who used them
    #[command(alias = "ls")]
    List,
    /// Withdraw an invite; machines that joined with it stay, unless it is said otherwise
    Cancel {
        /// Id, or its first digits
        id: String,
        /// This machine, and all that joined with the invite after it, are out as well
        #[arg(long, value_name = "NODE", conflicts_with = "void_all")]
        void_from: Option<String>,
        /// All machines that joined with it are out as well
        #[arg(long)]
        void_all: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InviteCreate {
    /// Machines that may join with it
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(identity::limits::INVITE_USES_MAX)))]
    pub(crate) uses: u32,
    /// How long it can be used: 12h, 7d, 4w [default: until it is used up]
    #[arg(long, value_name = "SPAN", value_parser = duration::parse)]
    pub(crate) expires: Option<Duration>,
    /// Label for the machines that join with it; may be given up to eight times
    #[arg(long, value_name = "LABEL", value_parser = Tag::parse)]
    pub(crate) label: Vec<Tag>,
    /// Note for people, up to 96 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
    /// Each machine waits until an admin has approved it: `muster pending approve NODE`
    #[arg(long)]
    pub(crate) approval: bool,
    /// Each machine needs the word of its TPM: who made it, and what was booted
    #[arg(long)]
    pub(crate) attest: bool,
    /// The same, and only of the TPM with this id; may be given up to eight times
    #[arg(long, value_name = "TPM", value_parser = tpm_id)]
    pub(crate) ek: Vec<TpmId>,
    /// The gateway that lets them in, by name or key [default: the first in good order]
    #[arg(long, value_name = "NODE")]
    pub(crate) gateway: Option<String>,
    /// Write the line to a new file for you alone instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn tpm_id(text: &str) -> Result<TpmId, String> {
    TpmId::from_hex(text).map_err(|_| "64 hexadecimal digits, as muster-preboot prints them".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The line, a file with it, or `-` for stdin
    pub(crate) invite: String,
    /// Name of this machine [default: its host name]
    #[arg(long, value_name = "NAME", value_parser = Name::parse)]
    pub(crate) name: Option<Name>,
    /// Where this machine keeps its keys [default: from muster.toml, or tpm]
    #[arg(long, value_name = "WHERE")]
    pub(crate) key_storage: Option<KeyStorage>,
    /// TPM device [default: from muster.toml, or /dev/tpmrm0]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) tpm: Option<PathBuf>,
    /// Enrol only; do not start the service
    #[arg(long)]
    pub(crate) no_start: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Revoke {
    #[command(subcommand)]
    pub(crate) status: Option<RevokeStatus>,
    /// Name, or the first digits of its key
    #[arg(required = true)]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// Why
    #[arg(long, default_value = "unspecified")]
    pub(crate) reason: Reason,
    /// Note for people, up to 96 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
    /// Of a gateway: this machine and all that it let in after it are out as well
    #[arg(long, value_name = "NODE")]
    pub(crate) void_from: Option<String>,
    /// Also take this admin, whose key was on the machine, out of the org's settings
    #[arg(long, value_name = "NAME")]
    pub(crate) with_admin: Option<String>,
    /// Revoke the machine only, though it is a gateway: leave invites and org settings as they are
    #[arg(long, conflicts_with_all = ["void_from", "with_admin"])]
    pub(crate) keep_roles: bool,
    #[command(flatten)]
    pub(crate) org_keys: OrgKeysAt,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RevokeStatus {
    /// Who has applied a revocation, or all that are not everywhere yet
    Status {
        /// Name, or the first digits of its key
        node: Option<String>,
        /// Go on, with a new line for every change, until all members have applied it
        #[arg(long)]
        watch: bool,
    },
}

/// How long a command looks for members that have applied what it did.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Waiting {
    /// How many members must have applied it before the command ends: all, quorum (more than half), or
    /// a number
    #[arg(long, value_name = "all|quorum|N", default_value = "all")]
    pub(crate) wait: Wait,
    /// How long to wait for them
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

/// How much coverage a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    All,
    Quorum,
    Members(u64),
}

impl core::str::FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "quorum" => Ok(Self::Quorum),
            number => number
                .parse()
                .map(Self::Members)
                .map_err(|_| "`all`, `quorum` or a number is wanted".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reason {
    Unspecified,
    Lost,
    Stolen,
    Compromised,
    Retired,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// This machine's keys, and how far a rotation is
    Show,
    /// Give this machine new keys, and end the old ones once a gateway has accepted the new
    Rotate {
        /// Keep the old keys valid beside the new ones, until `muster key retire`
        #[arg(long)]
        keep_old: bool,
        /// How long to wait for the end of it; it goes on afterwards
        #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// Give up keys that do not open any more: put them aside, and join anew
    Recover {
        /// Join with this invite at once: the line, a file with it, or `-` for stdin
        #[arg(long, value_name = "INVITE")]
        join: Option<String>,
    },
    /// End the old keys that `muster key rotate --keep-old` kept
    Retire {
        /// How long to wait for the end of it; it goes on afterwards
        #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = duration::parse)]
        timeout: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TpmCommand {
    /// Whether the keys open, and if not, which register differs and from what
    Status,
    /// Whether the keys would open under another image, and if not, why
    Plan {
        /// What `muster image preboot` made
        #[arg(long, value_name = "FILE")]
        uki: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// All sessions of this machine
    #[command(alias = "ls")]
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Why this machine refused or closed a connection, in full
    Why {
        /// The reference that the refused side was told
        #[arg(value_name = "REF")]
        reference: String,
    },
    /// Walk each step to a gateway and say what is wrong and why
    Connection(Connection),
    /// Walk for the member whose question is on stdin; muster-diagnose.socket starts it
    #[command(hide = true)]
    Answer,
    /// What somebody who helps wants to see, in one file; holds no secret
    Bundle(Bundle),
}

#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// HOST:PORT or wss://HOST:PORT [default: the first gateway that is known here]
    pub(crate) address: Option<String>,
    /// Accept these CA certificates and no others
    #[arg(long, value_name = "FILE")]
    pub(crate) org_ca: Option<PathBuf>,
    /// Go by what muster-preboot goes by at the next start
    #[arg(long)]
    pub(crate) as_preboot: bool,
    /// From the machine of this member, which has to offer `diagnose`
    #[arg(long, value_name = "NODE", conflicts_with = "org_ca")]
    pub(crate) from: Option<String>,
}
