//! Saying given frames in sessions of sync, a new session for each, and reporting how each ended.

use std::{
    fmt, fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use identity::limits::SYNC_FRAME_BYTES_MAX;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    attack::{Attacker, unix_ns},
    report::{Outcome, write_line},
    target::Target,
};

/// A session that goes on this long without a frame is left.
const QUIET: Duration = Duration::from_secs(20);
/// The first session may have to wait for the tunnel.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
const DIALS_MAX: u32 = 40;

/// Why there are no frames.
#[derive(Debug)]
pub(crate) enum FramesError {
    File(io::Error),
    Json(serde_json::Error),
}

impl fmt::Display for FramesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(why) => why.fmt(f),
            Self::Json(why) => why.fmt(f),
        }
    }
}

/// What became of one frame.
#[derive(Serialize)]
struct Said<'a> {
    t_unix_ns: u128,
    target: &'a str,
    kind: &'static str,
    /// Its place in the list.
    frame: usize,
    outcome: &'static str,
    code: Option<String>,
    /// Frames that came before the end.
    heard: u32,
}

/// The frames of a file: a JSON list of lists of bytes.
pub(crate) fn read(path: &Path) -> Result<Vec<Vec<u8>>, FramesError> {
    serde_json::from_slice(&fs::read(path).map_err(FramesError::File)?).map_err(FramesError::Json)
}

/// Says all of them to every target, one after the other.
pub(crate) async fn all(attacker: &Attacker, targets: &[Target], frames: &[Vec<u8>]) {
    for target in targets {
        for (number, frame) in frames.iter().enumerate() {
            let began = SystemTime::now();
            let (outcome, heard) = say(attacker, target, frame.clone()).await;
            let said = Said {
                t_unix_ns: unix_ns(began),
                target: &target.name,
                kind: "said",
                frame: number,
                outcome: outcome.name(),
                code: outcome.code().map(|code| code.to_string()),
                heard,
            };
            if write_line(&said).is_err() {
                // Nobody reads any more.
                return;
            }
        }
    }
}

async fn say(attacker: &Attacker, target: &Target, frame: Vec<u8>) -> (Outcome, u32) {
    let mut dials = 0;
    let mut session = loop {
        dials += 1;
        let until = Instant::now() + DIAL_DEADLINE;
        match attacker.dial(target, "sync", SYNC_FRAME_BYTES_MAX, until).await {
            Ok(session) => break session,
            // The tunnel may not be up, or the session before this one not gone.
            Err(_) if dials < DIALS_MAX => sleep(Duration::from_millis(100)).await,
            Err(outcome) => return (outcome, 0),
        }
    };
    let mut heard = 0;
    if let Err(end) = session.send(frame).await {
        return (Outcome::of_session(&end), heard);
    }
    loop {
        match tokio::time::timeout(QUIET, session.recv()).await {
            Ok(Ok(_)) => heard += 1,
            Ok(Err(end)) => return (Outcome::of_session(&end), heard),
            Err(_) => {
                session.close().await;
                return (Outcome::Ok, heard);
            }
        }
    }
}
