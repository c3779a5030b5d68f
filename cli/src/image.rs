//! `muster image`: what machines boot.

mod approvals;
pub(crate) mod get;
mod inputs;
mod modules;
mod node;
mod preboot;
mod publish;
mod recovery;
mod status;
mod tools;
mod verify;

use std::path::{Path, PathBuf};

pub(crate) use verify::Opened;

use identity::Code;

use crate::{
    args::{Everywhere, Image, OrgKeysAt},
    failure::{Failure, Outcome},
    org_keys,
    profile::{Admin, ORG_KEYS_FILE, PROFILE_FILE, Profile},
};

/// Runs one of the commands.
pub(crate) fn run(everywhere: &Everywhere, command: &Image) -> Outcome<()> {
    match command {
        Image::Preboot(args) => preboot::run(everywhere, args),
        Image::Node(args) => node::run(everywhere, args),
        Image::Get { hash, from, out } => get::run(everywhere, hash.as_deref(), from, out),
        Image::Publish { dir } => publish::run(everywhere, dir),
        Image::Recovery(args) => recovery::run(everywhere, args),
        Image::Status => status::run(everywhere),
        Image::Verify { file } => verify::run(everywhere, file),
    }
}

/// The org that an image is made for, and where its keys are.
fn org(everywhere: &Everywhere, directory: Option<&Path>, at: &OrgKeysAt) -> Outcome<(Profile, PathBuf)> {
    Ok(match directory {
        Some(directory) => {
            let path = at.org_keys.clone().unwrap_or_else(|| directory.join(ORG_KEYS_FILE));
            (Profile::read(&directory.join(PROFILE_FILE))?, path)
        }
        None => (Admin::find(everywhere)?.profile, org_keys::path(everywhere, at)?),
    })
}

fn unusable(why: impl core::fmt::Display) -> Failure {
    Failure::new(Code::ImageInputs, why)
}
