//! A machine whose node OS hangs before it is ready starts anew by itself, as often as an image may be
//! tried. musterd stops the watchdog when it is ready; preboot only starts it.

use std::fs::OpenOptions;

use crate::console::Console;

/// The kernel's own watchdog, without a device of the machine.
pub(crate) const MODULE: &str = "softdog.ko";
/// For the node OS to become ready: it links to a member, which takes seconds.
pub(crate) const PARAMETERS: &core::ffi::CStr = c"soft_margin=300";

/// From here on the machine starts anew when nobody says otherwise. Closing the device without its word,
/// as the change of the program does, leaves the watchdog running.
pub(crate) fn start(console: &Console) {
    if let Err(error) = OpenOptions::new().write(true).open(DEVICE) {
        console.note(format_args!("no watchdog: {error}; if the image hangs, switch the machine off and on"));
    }
}

const DEVICE: &str = "/dev/watchdog";
