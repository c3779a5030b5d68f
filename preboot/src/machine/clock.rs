//! Time, as far as certificates need it: a machine whose battery is empty starts in the past.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

use super::kernel::refused;
use crate::failure::Outcome;

/// Moves the clock to `unix_s` if it is before that; by how much.
pub(crate) fn not_before(unix_s: u64) -> Outcome<Option<Duration>> {
    let floor = UNIX_EPOCH + Duration::from_secs(unix_s);
    let Ok(behind) = floor.duration_since(SystemTime::now()) else { return Ok(None) };
    let tv_sec = i64::try_from(unix_s).unwrap_or(i64::MAX);
    clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: 0 })
        .map_err(|why| refused(format_args!("set the clock: {why}")))?;
    Ok(Some(behind))
}
