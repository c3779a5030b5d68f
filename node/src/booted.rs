//! The image that this machine was booted by, if it was: preboot says so in a file beside the control
//! socket. On any other machine there is none, and nothing here does anything.

use std::{fs, io::Write as _, path::Path};

use identity::Code;
use org_trust::RunningImage;

use crate::{config::Config, images};

/// The image, if this machine was booted by one.
#[must_use]
pub fn image(config: &Config) -> Option<RunningImage> {
    let path = config.control_socket.parent()?.join(RunningImage::FILE);
    let bytes = fs::read(&path).ok()?;
    match RunningImage::decode(&bytes) {
        Ok(image) => Some(image),
        Err(why) => {
            tracing::warn!(path = %path.display(), "what preboot says of the image is not readable: {why}");
            None
        }
    }
}

/// This machine is ready: the image is good, and is not given up any more.
pub async fn passed(image: RunningImage) {
    let release = image.release;
    let done = tokio::task::spawn_blocking(move || {
        let marked = images::mark_ready(&image);
        stop_watchdog(Path::new(WATCHDOG));
        marked
    });
    match done.await {
        Ok(Ok(())) => tracing::info!(release, "ready; this image is good"),
        Ok(Err(error)) => {
            tracing::warn!(release, MUSTER_CODE = %Code::NodeImageNotKept, %error, "ready, and that could not be noted");
        }
        Err(error) => tracing::debug!(%error, "not noted"),
    }
}

/// Preboot set it, so that a machine that hangs before this point starts anew.
fn stop_watchdog(device: &Path) {
    let stopped = fs::OpenOptions::new().write(true).open(device).and_then(|mut dog| dog.write_all(b"V"));
    if let Err(error) = stopped {
        tracing::debug!(%error, "no watchdog to stop");
    }
}

const WATCHDOG: &str = "/dev/watchdog";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_was_not_booted_by_an_image_knows_of_none() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { control_socket: dir.path().join("musterd.sock"), ..Config::default() };
        assert_eq!(image(&config), None);
        fs::write(dir.path().join(RunningImage::FILE), b"junk").unwrap();
        assert_eq!(image(&config), None, "and a torn file says nothing");
        let running = RunningImage { release: 4, floor: 2, slot: None, tries_left: None, given_up: Some(5) };
        fs::write(dir.path().join(RunningImage::FILE), running.encode()).unwrap();
        assert_eq!(image(&config), Some(running));
    }

    #[test]
    fn a_watchdog_is_stopped_by_its_word_and_none_is_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("watchdog");
        stop_watchdog(&device);
        fs::write(&device, b"").unwrap();
        stop_watchdog(&device);
        assert_eq!(fs::read(&device).unwrap(), b"V");
    }
}
