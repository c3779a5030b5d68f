//! `bench roster`: what the member list costs at a thousand and at ten thousand members.
//!
//! One admin, one gateway, every member admitted under one invite. Each round opens the file anew and then
//! measures every row on it, a snapshot of the roster being held all the while, as sessions hold one.

use std::{hint::black_box, sync::Arc, time::Instant};

use identity::OrgId;
use member_crdt::{Replica, Session, resolve};
use org_trust::{Lane, Place, Record, Statement, UnverifiedStatement};

use crate::{
    Failure, org,
    table::{Report, median},
};

/// Fewer rounds make no median.
const ROUNDS_MIN: usize = 5;
/// Statements applied in one round, each measured alone.
const APPLIED: u32 = 50;
/// What one statement may cost besides its signatures, with the roster brought up to date.
const APPLY_US_WANTED: f64 = 50.0;

pub(crate) fn run(rounds: usize) -> Result<Report, Failure> {
    let mut report = Report::new("roster", &["1000 us", "10000 us"]);
    let mut columns = Vec::new();
    for members in [1_000, 10_000] {
        eprintln!("{members} members");
        columns.push(measured(&Org::of(members)?, rounds.max(ROUNDS_MIN))?);
    }
    let [small, large] = columns.as_slice() else { return Err("two sizes are measured".into()) };
    for (name, figure) in small {
        let other = large.iter().find(|(n, _)| n == name).map_or(f64::NAN, |(_, f)| *f);
        report.row(*name, &[*figure, other]);
    }
    let of = |name: &str| large.iter().find(|(n, _)| *n == name).map_or(f64::NAN, |(_, f)| *f);
    let besides = of("apply one revocation") - of("verify one revocation");
    report.ratio("apply less signature / 50 us", besides / APPLY_US_WANTED, Some(1.0));
    Ok(report)
}

type Figures = Vec<(&'static str, f64)>;

fn measured(org: &Org, rounds: usize) -> Result<Figures, Failure> {
    let mut samples: Vec<(&'static str, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let mut note = |name: &'static str, us: f64| match samples.iter_mut().find(|(n, _)| *n == name) {
            Some((_, all)) => all.push(us),
            None => samples.push((name, vec![us])),
        };
        let (us, loaded) = timed(|| Replica::load(&org.file, &org.id));
        note("load, verifying all", us);
        let mut replica = loaded?.replica;
        let snapshot = replica.roster();
        for record in &org.revocations {
            note("verify one revocation", timed(|| org.verify(record)).0);
            let (us, applied) = timed(|| replica.apply(record));
            applied?;
            note("apply one revocation", us);
            note("heads after it", timed(|| replica.heads()).0);
            note("write it", timed(|| replica.save_incremental()).0);
        }
        for record in &org.admissions {
            note("verify one admission", timed(|| org.verify(record)).0);
            let (us, applied) = timed(|| replica.apply(record));
            applied?;
            note("apply one admission", us);
        }
        note("roster digest", timed(|| replica.roster_digest()).0);
        let chain = replica.chain().clone();
        let (us, roster) = timed(|| resolve(&chain, &org.statements));
        note("resolve all, verified", us);
        drop(black_box(roster));
        note("save", timed(|| replica.save()).0);
        let tips = Session::new().open(&replica);
        note("answer equal tips", timed(|| Session::new().handle(&mut replica, &tips)).0);
        drop(black_box(snapshot));
    }
    Ok(samples.into_iter().map(|(name, all)| (name, median(&all))).collect())
}

/// Microseconds, and what came of it.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let outcome = black_box(work());
    (start.elapsed().as_secs_f64() * 1e6, outcome)
}

struct Org {
    id: OrgId,
    file: Vec<u8>,
    statements: Vec<Arc<Statement>>,
    /// Of members, not in the file.
    revocations: Vec<Record>,
    /// Of newcomers, not in the file.
    admissions: Vec<Record>,
}

impl Org {
    fn of(members: u32) -> Result<Self, Failure> {
        let genesis = org::genesis()?;
        let (id, charter) = (genesis.org(), genesis.id());
        let first = |lane| Place { charter, lane, seq: 0, prev: charter.0 };
        let invite = org::invite(&id, first(Lane::Main), members + APPLIED)?;
        let admits = org::admits(&id, &invite.id(), first(Lane::Main), members + APPLIED)?;
        let revokes = org::revokes(&id, 0, first(Lane::Revokes), 0..APPLIED)?;
        let (old, new) = admits.split_at(members as usize);
        let mut replica = Replica::new(&genesis)?;
        let statements: Vec<Arc<Statement>> = [invite].iter().chain(old).cloned().map(Arc::new).collect();
        for statement in &statements {
            replica.apply(&Record::from(&**statement))?;
        }
        Ok(Self {
            id,
            file: replica.save()?,
            statements,
            revocations: revokes.iter().map(Record::from).collect(),
            admissions: new.iter().map(Record::from).collect(),
        })
    }

    fn verify(&self, record: &Record) -> bool {
        let statement = UnverifiedStatement::decode(record.bytes());
        statement.is_ok_and(|statement| statement.verify(&self.id).is_ok())
    }
}
