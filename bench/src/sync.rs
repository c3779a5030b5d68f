//! `bench sync`: bringing two replicas to the same set, beside automerge's own sync of documents with the same
//! records; and what a start costs.
//!
//! Both sides run in one process and one thread, every frame and message is encoded and decoded. automerge
//! verifies nothing, so what signatures cost is shown apart. Its documents have one change for each record, as
//! a node would have written them, which is the kinder case for it. A new session is one whose peers have
//! nothing stored of each other.

use std::{collections::VecDeque, hint::black_box, thread, time::Instant};

use automerge::{
    ActorId, AutoCommit, ObjId, ObjType, ROOT, ScalarValue,
    sync::{self, SyncDoc},
    transaction::Transactable,
};
use identity::{BootNonce, Label, OrgId, PublicKey, SecretKey, encode_hex};
use member_crdt::{Checked, Replica, Session, Unchecked};
use org_trust::{Lane, Place, Record, Report as NodeReport, ReportBody};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    Failure, allocations, org,
    table::{Report, median},
};

const SIZES: [u32; 2] = [10_000, 100_000];
/// Records that each side has and the other has not, in the rows that say so.
const EACH: u32 = 1000;
/// Signatures of an Admit: the author's, three keys', the invite's.
const SIGNATURES: usize = 5;
/// Keys that an Admit brings; each is read from its bytes and must lie in the prime-order subgroup.
const KEYS: usize = 3;
/// Pieces of a file that are verified beside their floor at a time.
const SLICE: usize = 2000;
/// Of verifying a file, in the bare cost of the arithmetic that its records ask for.
const COLD_WANTED: f64 = 1.15;

pub(crate) fn run(rounds: usize) -> Result<Report, Failure> {
    let columns = ["round trips", "bytes", "CPU ms", "less signatures", "wall ms", "MiB after", "MiB peak"];
    let mut report = Report::new("sync", &columns);
    for members in SIZES {
        measure(members, rounds.max(3), &mut report)?;
    }
    Ok(report)
}

fn measure(members: u32, rounds: usize, report: &mut Report) -> Result<(), Failure> {
    eprintln!("{members} members: signing");
    let org = Org::of(members)?;
    let name = |what: &str| format!("{members}: {what}");
    let none = f64::NAN;

    eprintln!("loading");
    let start = Instant::now();
    let (loaded, steady, peak) = allocations::of(|| Replica::load_with(&org.file, &org.id, on_all_cores));
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut a = loaded?.replica;
    let Cold { verified, signatures, bare } = cold(&org)?;
    report.row(name("bare signatures, all cores"), &[none, none, none, none, signatures, none, none]);
    report.row(name("bare signatures and new keys, all cores"), &[none, none, none, none, bare, none, none]);
    report.row(name("verify a file, all cores"), &[none, none, none, none, verified, none, none]);
    report.row(name("load a file, all cores"), &[none, none, none, none, load_ms, mib(steady), mib(peak)]);
    let mut b = Replica::load_with(&org.file, &org.id, on_all_cores)?.replica;
    let verify_ms = verify_ms();

    eprintln!("one missing");
    let mut next = [Place { lane: Lane::Revokes, ..org.first }; 2];
    let mut nodes = 0..members;
    let mut revoke = |admin: u32, count: u32, replica: &mut Replica| -> Result<Vec<Record>, Failure> {
        let place = next.get_mut(admin as usize).ok_or("an admin")?;
        let revokes = org::revokes(&org.id, admin, *place, nodes.by_ref().take(count as usize))?;
        *place = revokes.last().map_or(*place, |last| last.next_place(place.charter));
        let records: Vec<Record> = revokes.iter().map(Record::from).collect();
        for record in &records {
            replica.apply(record)?;
        }
        Ok(records)
    };
    let (mut doc_a, statements) = (org.document.clone(), org.statements.clone());
    let mut doc_b = doc_a.fork();
    let (mut ours, mut cold, mut warm) = (Vec::new(), Vec::new(), Vec::new());
    let mut states = [sync::State::new(), sync::State::new()];
    automerge_sync(&mut doc_a, &mut doc_b, &mut states)?;
    for _ in 0..rounds {
        for record in revoke(0, 1, &mut a)? {
            put(&mut doc_a, &statements, &record)?;
        }
        ours.push(muster_sync(&mut b, &mut a, verify_ms)?);
        let mut fresh = [sync::State::new(), sync::State::new()];
        cold.push(automerge_sync(&mut doc_b, &mut doc_a, &mut fresh)?);
        for record in revoke(0, 1, &mut a)? {
            put(&mut doc_a, &statements, &record)?;
        }
        muster_sync(&mut b, &mut a, verify_ms)?;
        warm.push(automerge_sync(&mut doc_a, &mut doc_b, &mut states)?);
    }
    let row = |report: &mut Report, what: &str, all: &[Traffic]| {
        let of = |figure: fn(&Traffic) -> f64| median(&all.iter().map(figure).collect::<Vec<_>>());
        let figures = [of(|t| t.trips / 2.0), of(|t| t.bytes), of(|t| t.cpu_ms), of(|t| t.less_ms)];
        report.row(name(what), &[figures[0], figures[1], figures[2], figures[3], none, none, none]);
    };
    row(report, "1 statement, muster", &ours);
    row(report, "1 statement, automerge, new session", &cold);
    row(report, "1 statement, automerge, kept session", &warm);

    eprintln!("a thousand on each side");
    let (mut ours, mut cold, mut trie) = (Vec::new(), Vec::new(), Vec::new());
    for seq in 0..3 {
        for record in revoke(0, EACH, &mut a)? {
            put(&mut doc_a, &statements, &record)?;
        }
        for record in revoke(1, EACH, &mut b)? {
            put(&mut doc_b, &statements, &record)?;
        }
        ours.push(muster_sync(&mut a, &mut b, verify_ms)?);
        let mut fresh = [sync::State::new(), sync::State::new()];
        cold.push(automerge_sync(&mut doc_a, &mut doc_b, &mut fresh)?);
        for (replica, nodes) in [(&mut a, 0..EACH), (&mut b, EACH..2 * EACH)] {
            for n in nodes {
                let applied = replica.apply(&Record::from(&org.report(n, seq, replica)?))?;
                black_box(applied);
            }
        }
        trie.push(muster_sync(&mut a, &mut b, verify_ms)?);
    }
    row(report, "1000 + 1000 statements, muster", &ours);
    row(report, "1000 + 1000 statements, automerge, new session", &cold);
    row(report, "1000 + 1000 reports, muster (trie)", &trie);

    let ratio = |a: f64, b: f64| a / b;
    if members == SIZES[1] {
        report.ratio(
            "verify 100,000 / bare signatures and new keys",
            ratio(verified, bare),
            Some(COLD_WANTED),
        );
        report.ratio("verify 100,000 / bare signatures", ratio(verified, signatures), None);
        report.ratio("load 100,000 / bare signatures and new keys", ratio(load_ms, bare), None);
    }
    Ok(())
}

/// What verifying a file costs, in milliseconds, and the arithmetic of it alone.
#[derive(Clone, Copy, Default)]
struct Cold {
    verified: f64,
    /// The signatures of as many Admits, by keys parsed before.
    signatures: f64,
    /// And what is asked of the keys they bring.
    bare: f64,
}

/// Slice by slice, each beside its floor: the speed of a machine moves by a third within minutes.
fn cold(org: &Org) -> Result<Cold, Failure> {
    let sums = std::cell::RefCell::new(Ok(Cold::default()));
    // The pieces come in two calls: each Admit, which asks all but one of its signatures and its keys, and then that one.
    let calls = std::cell::Cell::new(0);
    Replica::load_with(&org.file, &org.id, |mut pieces| {
        let (signed, keys) =
            if calls.replace(calls.get() + 1) == 0 { (SIGNATURES - 1, KEYS) } else { (1, 0) };
        let mut checked = Vec::with_capacity(pieces.len());
        while !pieces.is_empty() {
            let slice = pieces.split_off(pieces.len().saturating_sub(SLICE));
            let count = slice.len();
            let (ms, outcomes) = timed(|| on_all_cores(slice));
            checked.extend(outcomes);
            let floor =
                bare(count, signed, 0).and_then(|signatures| Ok((signatures, bare(count, signed, keys)?)));
            let mut sums = sums.borrow_mut();
            match (&mut *sums, floor) {
                (Ok(sum), Ok((signatures, bare))) => {
                    sum.verified += ms;
                    sum.signatures += signatures;
                    sum.bare += bare;
                }
                (Ok(_), Err(why)) => *sums = Err(why),
                (Err(_), _) => {}
            }
        }
        checked
    })?;
    sums.into_inner()
}

/// What one exchange came to.
struct Traffic {
    trips: f64,
    bytes: f64,
    cpu_ms: f64,
    /// Without what the receivers' signatures cost.
    less_ms: f64,
}

/// A round that `a` begins.
fn muster_sync(a: &mut Replica, b: &mut Replica, verify_ms: f64) -> Result<Traffic, Failure> {
    let start = cpu_ms();
    let (mut at_a, mut at_b) = (Session::new(), Session::new());
    let (mut trips, mut bytes, mut new) = (0u32, 0, 0usize);
    let mut wire = VecDeque::from([(true, 1, at_a.open(a))]);
    while let Some((to_b, trip, frame)) = wire.pop_front() {
        trips = trips.max(trip);
        bytes += frame.len();
        let out = if to_b { at_b.handle(b, &frame)? } else { at_a.handle(a, &frame)? };
        new += out.new.len();
        wire.extend(out.send.into_iter().map(|frame| (!to_b, trip + 1, frame)));
    }
    let cpu_ms = cpu_ms() - start;
    if a.heads() != b.heads() {
        return Err("one round did not suffice".into());
    }
    let less_ms = cpu_ms - verify_ms * new as f64;
    Ok(Traffic { trips: trips.into(), bytes: bytes as f64, cpu_ms, less_ms })
}

/// The same by automerge's own protocol.
fn automerge_sync(
    a: &mut AutoCommit,
    b: &mut AutoCommit,
    states: &mut [sync::State; 2],
) -> Result<Traffic, Failure> {
    let start = cpu_ms();
    let [at_a, at_b] = states;
    let (mut trips, mut bytes, mut quiet) = (0u32, 0, 0);
    let mut to_b = true;
    while quiet < 2 {
        let (from, to) = if to_b { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        let (from_state, to_state) = if to_b { (&mut *at_a, &mut *at_b) } else { (&mut *at_b, &mut *at_a) };
        match from.sync().generate_sync_message(from_state) {
            Some(message) => {
                let message = message.encode();
                (trips, bytes, quiet) = (trips + 1, bytes + message.len(), 0);
                to.sync().receive_sync_message(to_state, sync::Message::decode(&message)?)?;
            }
            None => quiet += 1,
        }
        to_b = !to_b;
    }
    let cpu_ms = cpu_ms() - start;
    if a.get_heads() != b.get_heads() {
        return Err("automerge's documents differ".into());
    }
    Ok(Traffic { trips: trips.into(), bytes: bytes as f64, cpu_ms, less_ms: cpu_ms })
}

struct Org {
    id: OrgId,
    first: Place,
    document: AutoCommit,
    statements: ObjId,
    file: Vec<u8>,
}

impl Org {
    /// Signs everything and writes the document as musterd would, one change for each record.
    fn of(members: u32) -> Result<Self, Failure> {
        let genesis = org::genesis()?;
        let (id, charter) = (genesis.org(), genesis.id());
        let first = Place { charter, lane: Lane::Main, seq: 0, prev: charter.0 };
        let invite = org::invite(&id, first, members)?;
        let mut document = AutoCommit::new().with_actor(ActorId::from(id.0));
        document.put(ROOT, "version", ScalarValue::Uint(1))?;
        document.put(ROOT, "org", ScalarValue::Bytes(id.0.to_vec()))?;
        let charters = document.put_object(ROOT, "charters", ObjType::Map)?;
        let statements = document.put_object(ROOT, "statements", ObjType::Map)?;
        document.put_object(ROOT, "reports", ObjType::Map)?;
        document.put(&charters, format!("{:010}", 1), ScalarValue::Bytes(genesis.bytes().to_vec()))?;
        document.commit();
        put(&mut document, &statements, &Record::from(&invite))?;
        for admit in org::admits(&id, &invite.id(), first, members)? {
            put(&mut document, &statements, &Record::from(&admit))?;
        }
        let file = document.save();
        Ok(Self { id, first, document, statements, file })
    }

    fn report(&self, node: u32, seq: u64, replica: &Replica) -> Result<NodeReport, Failure> {
        let body = ReportBody {
            boot_nonce: BootNonce([1; 16]),
            seq,
            heads: replica.heads(),
            count: replica.count(),
            charter: replica.chain().head().id(),
            tips: replica.report_tips(),
            version: "0.1.0".to_owned(),
            endpoints: Vec::new(),
        };
        Ok(NodeReport::sign(&self.id, &org::key("node", node), body)?)
    }
}

fn put(document: &mut AutoCommit, statements: &ObjId, record: &Record) -> Result<(), Failure> {
    document.put(statements, encode_hex(&record.id()), ScalarValue::Bytes(record.bytes().to_vec()))?;
    document.commit();
    Ok(())
}

/// As musterd does it at its start.
fn on_all_cores(mut pieces: Vec<Unchecked>) -> Vec<Checked> {
    let share = pieces.len().div_ceil(cores()).max(64);
    thread::scope(|scope| {
        let check = |part: Vec<Unchecked>| part.into_iter().map(Unchecked::check).collect::<Vec<_>>();
        let mut others = Vec::new();
        while pieces.len() > share {
            let part = pieces.split_off(pieces.len() - share);
            others.push(scope.spawn(move || check(part)));
        }
        let mut checked = check(pieces);
        checked.extend(others.into_iter().flat_map(|other| other.join().unwrap_or_default()));
        checked
    })
}

/// So many times so many verifications by a key parsed before, and keys parsed and tested, on all cores and nothing
/// else. Milliseconds.
fn bare(times: usize, signed: usize, keys: usize) -> Result<f64, Failure> {
    let key = SecretKey::from_seed(&[1; 32]);
    let (public, message) = (key.public(), [7; 400]);
    let signature = key.sign(Label::STATEMENT, &message);
    let holds = || public.verify(Label::STATEMENT, black_box(&message), &signature).is_ok();
    let good = || {
        let parsed = PublicKey::from_bytes(black_box(public.as_bytes()));
        parsed.is_ok_and(|key| key.is_torsion_free())
    };
    let one = || (0..signed).all(|_| holds()) && (0..keys).all(|_| good());
    let (ms, held) = timed(|| {
        thread::scope(|scope| {
            let check = |count: usize| (0..count).all(|_| one());
            let share = |core| times / cores() + usize::from(core < times % cores());
            let threads: Vec<_> = (0..cores()).map(|core| scope.spawn(move || check(share(core)))).collect();
            threads.into_iter().all(|thread| thread.join().unwrap_or(false))
        })
    });
    if held { Ok(ms) } else { Err("a signature does not hold".into()) }
}

/// One verification on this thread, its key parsed with it.
fn verify_ms() -> f64 {
    let key = SecretKey::from_seed(&[1; 32]);
    let (public, message) = (*key.public().as_bytes(), [7; 250]);
    let signature = key.sign(Label::STATEMENT, &message);
    let start = cpu_ms();
    for _ in 0..500 {
        let public = PublicKey::from_bytes(black_box(&public));
        black_box(public.is_ok_and(|public| public.verify(Label::STATEMENT, &message, &signature).is_ok()));
    }
    (cpu_ms() - start) / 500.0
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let outcome = work();
    (start.elapsed().as_secs_f64() * 1e3, outcome)
}

fn cpu_ms() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / 1_048_576.0
}
