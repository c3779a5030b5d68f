//! Hosts on one Ethernet: a namespace each, a bridge between them, and faults on demand.

use core::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::LinkNameSpaceType;

use crate::command::{self, CommandError};
use crate::program::Program;
use crate::sandbox::Sandbox;

/// Which addresses hosts get on the bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underlay {
    /// 10.77.0.x/24 and fd77::x/64.
    #[default]
    Both,
    /// 10.77.0.x/24 only.
    V4,
}

/// An Ethernet bridge in the sandbox's own network namespace, which has the last address on it.
#[derive(Debug)]
pub struct Bridge {
    underlay: Underlay,
    attached: u8,
}

impl Bridge {
    /// The address of the program that runs the lab.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

    /// Makes the bridge. A sandbox has one.
    ///
    /// # Errors
    /// A tool is missing or refused.
    pub fn new(_inside: &Sandbox, underlay: Underlay) -> Result<Self, NetworkError> {
        if command::find("nft").is_none() {
            return Err(NetworkError::Missing { program: "nft", package: "nftables" });
        }
        let mut batch = format!(
            "link add {BRIDGE} type bridge forward_delay 0\naddr add {}/24 dev {BRIDGE}\n",
            Self::ADDRESS
        );
        if underlay == Underlay::Both {
            batch.push_str(&format!("addr add {}/64 dev {BRIDGE} nodad\n", ipv6(254)));
        }
        batch.push_str(&format!("link set {BRIDGE} up\n"));
        command::run_with_input("ip", ["-batch", "-"], &batch).map_err(NetworkError::Command)?;
        let bridge = Self { underlay, attached: 0 };
        nft(&format!(
            "table bridge {TABLE} {{\n\
               chain cut {{ type filter hook forward priority 0; policy accept; }}\n\
               chain loss {{ type filter hook forward priority 1; policy accept; }}\n\
             }}\n"
        ))?;
        Ok(bridge)
    }

    /// Makes hosts of these names, each with the next address, and plugs them in.
    ///
    /// # Errors
    /// A name is unusable or taken, the network is full, or a tool refused.
    pub fn attach<S: AsRef<str>>(&mut self, names: &[S]) -> Result<Vec<Namespace>, NetworkError> {
        let mut hosts = Vec::new();
        let mut batch = String::new();
        for name in names {
            let name = checked(name.as_ref())?;
            let number =
                self.attached.checked_add(1).filter(|n| *n <= HOSTS_MAX).ok_or(NetworkError::Full)?;
            self.attached = number;
            batch.push_str(&format!(
                "netns add {name}\n\
                 link add {port} type veth peer name eth0 netns {name}\n\
                 link set {port} master {BRIDGE} up\n",
                port = port(name),
            ));
            let address6 = (self.underlay == Underlay::Both).then(|| ipv6(number));
            hosts.push(Namespace {
                name: name.to_owned(),
                address: Ipv4Addr::new(10, 77, 0, number),
                address6,
            });
        }
        command::run_with_input("ip", ["-batch", "-"], &batch).map_err(NetworkError::Command)?;
        for host in &hosts {
            let mut batch = format!("link set lo up\naddr add {}/24 dev eth0\n", host.address);
            if let Some(address) = host.address6 {
                batch.push_str(&format!("addr add {address}/64 dev eth0 nodad\n"));
            }
            batch.push_str("link set eth0 up\n");
            command::run_with_input("ip", ["-n", &host.name, "-batch", "-"], &batch)
                .map_err(NetworkError::Command)?;
        }
        Ok(hosts)
    }

    /// A port for a machine that is emulated: a tap interface, whose name it returns. The machine gets its
    /// address from [`crate::vm::serve_addresses`].
    ///
    /// # Errors
    /// ip refused.
    pub fn tap(&self, number: u8) -> Result<String, NetworkError> {
        let name = format!("tap{number}");
        // There was one if the machine was on before; whatever held it has ended.
        drop(command::run("ip", ["link", "del", &name]));
        let batch = format!("tuntap add dev {name} mode tap\nlink set {name} master {BRIDGE} up\n");
        command::run_with_input("ip", ["-batch", "-"], &batch).map_err(NetworkError::Command)?;
        Ok(name)
    }

    /// Counts the WireGuard datagrams that pass from one port to another, from now on.
    ///
    /// # Errors
    /// nft refused.
    pub fn count(&self, from: &str, to: &str) -> Result<(), NetworkError> {
        let chain = format!("{from}_{to}");
        nft(&format!(
            "add chain bridge {TABLE} {chain} {{ type filter hook forward priority 2; policy accept; }}\n\
             add rule bridge {TABLE} {chain} iifname {from} oifname {to} udp dport {WIREGUARD_PORT} counter\n"
        ))
    }

    /// How many have passed since [`Self::count`].
    ///
    /// # Errors
    /// nft refused, or nothing was counted.
    pub fn counted(&self, from: &str, to: &str) -> Result<u64, NetworkError> {
        let chain = format!("{from}_{to}");
        let said =
            command::run("nft", ["list", "chain", "bridge", TABLE, &chain]).map_err(NetworkError::Command)?;
        let count =
            said.split_once("packets ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        count.ok_or(NetworkError::Name(chain))
    }

    /// Lets nothing pass between the two groups, in addition to the cuts that are there.
    ///
    /// # Errors
    /// nft refused.
    pub fn cut(&self, these: &[&Namespace], from_those: &[&Namespace]) -> Result<(), NetworkError> {
        self.cut_one_way(these, from_those)?;
        self.cut_one_way(from_those, these)
    }

    /// Lets nothing pass from the first group to the second; the other way stays open.
    ///
    /// # Errors
    /// nft refused.
    pub fn cut_one_way(&self, from: &[&Namespace], to: &[&Namespace]) -> Result<(), NetworkError> {
        if from.is_empty() || to.is_empty() {
            return Ok(());
        }
        nft(&format!("add rule bridge {TABLE} cut iifname {} oifname {} drop\n", ports(from), ports(to)))
    }

    /// Takes back every cut.
    ///
    /// # Errors
    /// nft refused.
    pub fn heal(&self) -> Result<(), NetworkError> {
        nft(&format!("flush chain bridge {TABLE} cut\n"))
    }

    /// Pulls a host's cable, or puts it back.
    ///
    /// # Errors
    /// ip refused.
    pub fn plug(&self, host: &Namespace, plugged: bool) -> Result<(), NetworkError> {
        let state = if plugged { "up" } else { "down" };
        let batch = format!("link set {} {state}\n", port(&host.name));
        command::run_with_input("ip", ["-batch", "-"], &batch).map(drop).map_err(NetworkError::Command)
    }

    /// Loses this share of all frames between hosts; 0 loses none.
    ///
    /// # Errors
    /// More than 100, or nft refused.
    pub fn lose(&self, percent: u8) -> Result<(), NetworkError> {
        let rule = match percent {
            0 => String::new(),
            // Not expressible as a share: numgen gives 0 to 99.
            100 => format!("add rule bridge {TABLE} loss drop\n"),
            1..=99 => format!("add rule bridge {TABLE} loss numgen random mod 100 < {percent} drop\n"),
            101.. => return Err(NetworkError::Percent(percent)),
        };
        nft(&format!("flush chain bridge {TABLE} loss\n{rule}"))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Nothing to be done about a failure: the sandbox's end removes both.
        drop(nft(&format!("delete table bridge {TABLE}\n")));
        drop(command::run("ip", ["link", "del", BRIDGE]));
    }
}

/// A host's network. Dropping it removes the namespace once the last process in it has ended.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    address: Ipv4Addr,
    address6: Option<Ipv6Addr>,
}

impl Namespace {
    /// As `ip netns` knows it inside the sandbox.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// On the bridge.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// On the bridge, with [`Underlay::Both`].
    #[must_use]
    pub const fn address6(&self) -> Option<Ipv6Addr> {
        self.address6
    }

    /// A program that will run here.
    #[must_use]
    pub fn program(&self, program: impl Into<PathBuf>) -> Program {
        Program::new(program).in_namespace(&self.name)
    }

    /// Runs a closure in a thread that lives here: the sockets it opens are this host's, and stay so
    /// when they are returned.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
        let entered = |source| NetworkError::Enter { name: self.name.clone(), source };
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).map_err(entered)?;
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                rustix::thread::move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )
                .map(|()| body())
            });
            match thread.join() {
                Ok(result) => result.map_err(|source| entered(source.into())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The veth pair would go with it, but not at once; the port must be free for the next of its name.
        let batch = format!("link del {}\nnetns del {}\n", port(&self.name), self.name);
        drop(command::run_with_input("ip", ["-force", "-batch", "-"], &batch));
    }
}

/// Why the network is not as asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetworkError {
    /// A tool failed.
    Command(CommandError),
    /// The namespace cannot be entered.
    Enter {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// All addresses are taken.
    Full,
    /// A program is not installed.
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package it is in.
        package: &'static str,
    },
    /// A name is not 1 to 11 of a-z, 0-9 and `-`.
    Name(String),
    /// Not a share of a hundred.
    Percent(u8),
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(error) => write!(f, "{error}"),
            Self::Enter { name, .. } => write!(f, "cannot enter the namespace {name}"),
            Self::Full => write!(f, "a bridge takes {HOSTS_MAX} hosts"),
            Self::Missing { program, package } => {
                write!(f, "{program} is missing: apt-get install --no-install-recommends {package}")
            }
            Self::Name(name) => write!(f, "{name:?} is no host name of 1 to 11 characters a-z, 0-9, -"),
            Self::Percent(percent) => write!(f, "{percent} is more than 100 percent"),
        }
    }
}

impl core::error::Error for NetworkError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Command(error) => error.source(),
            Self::Enter { source, .. } => Some(source),
            Self::Full | Self::Missing { .. } | Self::Name(_) | Self::Percent(_) => None,
        }
    }
}

fn checked(name: &str) -> Result<&str, NetworkError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if matches!(name.len(), 1..=11) && name.bytes().all(plain) && !name.starts_with('-') {
        Ok(name)
    } else {
        Err(NetworkError::Name(name.to_owned()))
    }
}

fn port(name: &str) -> String {
    format!("to-{name}")
}

fn ports(hosts: &[&Namespace]) -> String {
    let names: Vec<_> = hosts.iter().map(|host| format!("\"{}\"", port(&host.name))).collect();
    format!("{{ {} }}", names.join(", "))
}

const fn ipv6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number as u16)
}

fn nft(script: &str) -> Result<(), NetworkError> {
    command::run_with_input("nft", ["-f", "-"], script).map(drop).map_err(NetworkError::Command)
}

pub(crate) const BRIDGE: &str = "lab0";
const TABLE: &str = "lab";
const WIREGUARD_PORT: u16 = 51820;
const HOSTS_MAX: u8 = 250;
