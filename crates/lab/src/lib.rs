//! Machines that are not there: software TPMs, network namespaces and daemons for tests, benchmarks
//! and the demo.
//!
//! Everything is made inside a [`Sandbox`], a set of namespaces of its own in which the calling
//! program runs once more; when that program ends, however it ends, the kernel removes it all. Every
//! process started here is ended by its own id.
//!
//! ```no_run
//! use std::time::Duration;
//! use lab::{Lab, LabConfig, Ready, Sandbox};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::enter()?; // from here on inside
//! let lab = Lab::build(&sandbox, LabConfig::hosts(3))?;
//! let host = &lab.hosts()[0];
//! let daemon = host
//!     .program("/usr/bin/musterd")
//!     .env("STATE_DIRECTORY", host.dir())
//!     .spawn(&Ready::Notify, Duration::from_secs(10))?;
//! lab.isolate(&["n1"])?; // the others go on without it
//! lab.bridge().heal()?;
//! daemon.stop(Duration::from_secs(5));
//! # Ok(())
//! # }
//! ```
//!
//! Of what is installed only `muster lab` uses it. It touches no name outside the sandbox: no
//! `/run/netns`, no packet filter table, no interface of the host. [`packages::install`] is the one
//! exception and runs only when it is called.

mod command;
mod daemon;
pub mod fire;
mod hosts;
pub mod images;
pub mod keeper;
mod kept;
mod network;
pub mod org;
pub mod packages;
pub mod probe;
mod program;
mod sandbox;
mod swtpm;
pub mod vm;
mod watch;

pub use command::CommandError;
pub use daemon::{Daemon, Held};
pub use hosts::{Host, Lab, LabConfig, LabError, Tpms};
pub use kept::{Holder, Kept, KeptError, Presence};
pub use network::{Bridge, Namespace, NetworkError, Underlay};
pub use program::{Ended, Open, Program, ProgramError, Ready};
pub use rustix::process::Signal;
pub use sandbox::{Sandbox, SandboxError, test};
pub use swtpm::{Swtpm, SwtpmError};
