//! A replica from what its file holds: every record verified, and one resolution of the whole.

use std::sync::Arc;

use identity::OrgId;
use org_trust::{CharterChain, Record};

use super::{Loaded, Replica};
use crate::{
    document::Document,
    held::Fit,
    load::{self, Checked, Outcome, Unchecked},
    outcome::{Broken, LoadError, Rejected},
};

impl Replica {
    /// Opens what [`Self::save`] and [`Self::save_incremental`] wrote, one after the other in one
    /// file. Every record is verified again; the file is trusted with nothing.
    ///
    /// # Errors
    /// [`LoadError`] when the file is damaged beyond its end, or another org's.
    pub fn load(bytes: &[u8], org: &OrgId) -> Result<Loaded, LoadError> {
        Self::load_with(bytes, org, |pieces| pieces.into_iter().map(Unchecked::check).collect())
    }

    /// The same; `verify` checks the pieces it is given, on as many cores as there are. It is called
    /// twice, because whether an invite's key signed is asked once the invites are known.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        bytes: &[u8],
        org: &OrgId,
        verify: impl Fn(Vec<Unchecked>) -> Vec<Checked>,
    ) -> Result<Loaded, LoadError> {
        let opened = Document::open(bytes, org).map_err(LoadError::Document)?;
        let mut records = opened.records.into_iter();
        // The first alone: of a later one that does not hold the others are kept.
        let first = records.next().filter(|record| matches!(record, Record::Charter(_)));
        let chain = first.and_then(|first| CharterChain::read([first.bytes()]).ok());
        let chain = chain.filter(|chain| chain.org() == *org).ok_or(LoadError::NoGenesis)?;
        let mut replica = Self::over(chain, opened.document);
        let refused = replica.fill(records, verify);
        for node in opened.clones {
            replica.reports.note_clash(node);
        }
        Ok(Loaded { replica, torn: opened.torn, refused })
    }

    /// The records of a file as they stand there, none of them judged: for whoever checks files.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn read_records(bytes: &[u8], org: &OrgId) -> Result<Vec<Record>, LoadError> {
        Document::open(bytes, org).map(|opened| opened.records).map_err(LoadError::Document)
    }

    /// Takes the records of a file: all of them, then one resolution of the whole.
    fn fill(
        &mut self,
        records: impl Iterator<Item = Record>,
        verify: impl Fn(Vec<Unchecked>) -> Vec<Checked>,
    ) -> Vec<Rejected> {
        let (org, mut refused, mut pieces) = (self.org(), Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Charter(bytes) => {
                    if let Err(why) = self.take_charter(&bytes) {
                        refused.push(why);
                    }
                }
                Record::Statement(bytes) => pieces.push(Unchecked::statement(org, bytes)),
                Record::Report(bytes) => pieces.push(Unchecked::report(org, bytes)),
            }
        }
        let mut statements = Vec::new();
        let mut reports = Vec::new();
        for checked in verify(pieces) {
            match checked.0 {
                Outcome::Statement(statement) => statements.push(statement),
                Outcome::Report(report) => reports.push(report),
                Outcome::Refused(why) => refused.push(why),
                Outcome::Redemption(..) => {}
            }
        }
        let invited = verify(load::redemptions(org, &statements));
        // By place, so that a predecessor comes first; what machines say after the Admits it follows.
        statements.sort_by_key(|s| (s.payload().is_by_node(), s.seq()));
        loop {
            let before = statements.len();
            statements.retain(|statement| match self.held.fit(&self.chain, statement) {
                Ok(Fit::Here(spot)) => {
                    self.ids.insert(statement.id().0);
                    let kept = self.held.keep(Arc::clone(statement), spot);
                    for old in &kept.dropped {
                        self.ids.remove(&old.id().0);
                    }
                    false
                }
                // What was dropped for another still stands in the file.
                Ok(Fit::Known) | Err(Rejected::Surplus) => false,
                Ok(Fit::Waiting(_)) => true,
                Err(why) => {
                    refused.push(why);
                    false
                }
            });
            if statements.len() == before || statements.is_empty() {
                break;
            }
        }
        // What stood behind a statement that was dropped is still in the file.
        let stray = statements.iter().filter(|s| !s.payload().is_by_node());
        refused.extend(stray.map(|_| Rejected::Broken(Broken::Previous)));
        for checked in invited {
            if let Outcome::Redemption(admit, holds) = checked.0
                && let Some(entry) = self.held.get(&admit)
            {
                entry.invited.get_or_init(|| holds);
            }
        }
        for report in reports {
            if !self.held.is_named(report.node().as_bytes()) {
                refused.push(Rejected::ReportOfStranger { node: *report.node().as_bytes() });
            } else {
                self.keep_report(report);
            }
        }
        self.document.forget_pending();
        self.roster = Arc::new(self.rules().whole());
        refused
    }
}
