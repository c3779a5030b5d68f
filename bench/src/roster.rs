//! `bench roster`.

use crate::{Failure, table::Report};

pub(crate) fn run(_rounds: usize) -> Result<Report, Failure> {
    Ok(Report::new("roster", &["us"]))
}
