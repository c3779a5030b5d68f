//! Machines that fetch an image, at the gateway and in a tunnel.

use std::time::Duration;

use identity::{
    BlobHash,
    limits::{BLOB_PUTS_MAX, BLOB_PUTS_PER_MEMBER_MAX, BLOB_QUIET_MS, BLOB_SESSIONS_PER_MEMBER_MAX},
};
use org_trust::{BlobReply, BlobRequest, PolicyChange};
use policy::PolicyFile;
use tempfile::TempDir;

use super::*;
use crate::blobs::{Blobs, Room};

const PIECES: BlobRequest = BlobRequest::Pieces { file: BlobHash([7; 32]), first: 0, count: 16 };

/// What the disk gives for it: more than a front takes at once.
fn pieces() -> Vec<Vec<u8>> {
    (0..16).map(|n| BlobReply::Piece(vec![n; 9]).encode()).collect()
}

impl Bench {
    fn ask_for_image(&mut self, id: u64) {
        self.front(FromGateway::Data { id, frame: PIECES.encode().into() });
    }

    fn image_read(&mut self) {
        let (key, request) = self.asked_images.pop().unwrap();
        assert_eq!(request, PIECES);
        self.state.on_image_read(key, Some(pieces()));
        self.perform();
    }

    fn pieces_heard(&mut self) -> usize {
        let heard = self.heard().into_iter();
        heard.filter(|message| matches!(message, ToGateway::Data { .. })).count()
    }
}

#[test]
fn a_machine_fetches_an_image_by_one_question_after_the_other() {
    let mut bench = Bench::new();
    let (id, verdict) = bench.open_outside(&key(22), "blob-get");
    assert!(verdict.starts_with("ok "), "{verdict}");
    for _ in 0..3 {
        bench.ask_for_image(id);
        assert_eq!(bench.pieces_heard(), 0, "the disk has not answered");
        bench.image_read();
        assert_eq!(bench.pieces_heard(), 16);
    }
    bench.ask_for_image(id);
    bench.ask_for_image(id);
    assert_eq!(bench.asked_images.len(), 1);
    assert!(matches!(bench.heard().as_slice(), [ToGateway::Cut { .. }]), "it did not wait");
    bench.image_read();
    assert_eq!(bench.heard(), []);
}

#[test]
fn a_transfer_is_cut_by_a_revocation_and_not_a_byte_follows() {
    let mut bench = Bench::new();
    let (reading, _) = bench.open_outside(&key(22), "blob-get");
    bench.ask_for_image(reading);
    bench.revoke(20);
    let cut = bench.heard();
    assert!(
        matches!(cut.as_slice(), [ToGateway::Cut { code: Some(code), .. }] if code.0 == Code::Revoked),
        "{cut:?}"
    );
    bench.image_read();
    assert_eq!(bench.heard(), [], "what the disk gave meanwhile");
    bench.ask_for_image(reading);
    assert_eq!(bench.asked_images.len(), 0);
    let (_, verdict) = bench.open_outside(&key(22), "blob-get");
    assert!(verdict.ends_with("code=MU-1403"), "{verdict}");
}

#[test]
fn a_member_fetches_an_image_in_its_tunnel_until_it_is_revoked() {
    let mut bench = Bench::new();
    let machine = Machine::new(20);
    let (ends, verdict) = bench.open_tunnel(&machine, "blob-get", machine.wireguard());
    assert!(verdict.starts_with("ok "), "{verdict}");
    let mut ends = ends.unwrap();
    let key = bench.state.sessions.iter().last().unwrap().0;
    bench.state.on_frame(key, &PIECES.encode(), bench.now);
    bench.perform();
    bench.image_read();
    let heard: Vec<_> = std::iter::from_fn(|| ends.frames.try_recv().ok()).collect();
    assert_eq!(heard, pieces());
    bench.state.on_frame(key, &PIECES.encode(), bench.now);
    bench.perform();
    bench.revoke(20);
    bench.image_read();
    assert!(ends.frames.try_recv().is_err());
    assert_eq!(ends.cut.try_recv().unwrap().code, Code::Revoked);
}

#[test]
fn only_boot_keys_fetch_at_the_gateway_and_what_is_no_question_is_refused() {
    let mut bench = Bench::new();
    for (by, code) in [(key(20), "MU-1407"), (key(77), "MU-1401"), (admin(), "MU-1407")] {
        let (_, verdict) = bench.open_outside(&by, "blob-get");
        assert!(verdict.ends_with(code), "{verdict}");
    }
    drop(bench.heard());
    let (id, _) = bench.open_outside(&key(22), "blob-get");
    bench.front(FromGateway::Data { id, frame: vec![9].into() });
    let Some(ToGateway::Data { frame, .. }) = bench.heard().pop() else { panic!("no answer") };
    assert_eq!(BlobReply::decode(&frame.0), Ok(BlobReply::Refused(Code::RequestMalformed)));
    assert!(bench.asked_images.is_empty());
}

#[test]
fn a_machine_that_asks_for_nothing_more_is_cut_and_one_that_waits_for_the_disk_is_not() {
    let mut bench = Bench::new();
    let quiet = Duration::from_millis(BLOB_QUIET_MS);
    let moment = Duration::from_millis(1);
    let cut_of = |heard: Vec<ToGateway>| {
        heard.into_iter().find_map(|message| match message {
            ToGateway::Cut { code, .. } => code.map(|code| code.0),
            ToGateway::Challenge { .. }
            | ToGateway::Verdict { .. }
            | ToGateway::Data { .. }
            | ToGateway::Charters { .. } => None,
        })
    };
    let (asks_nothing, _) = bench.open_outside(&key(22), "blob-get");
    bench.later(quiet - moment);
    assert_eq!(cut_of(bench.heard()), None);
    bench.later(moment);
    assert_eq!(cut_of(bench.heard()), Some(Code::TransferSilent));
    bench.ask_for_image(asks_nothing);
    assert!(bench.asked_images.is_empty(), "it is over");
    assert_eq!(cut_of(bench.heard()), Some(Code::RequestMalformed));

    let (id, _) = bench.open_outside(&key(22), "blob-get");
    for _ in 0..2 {
        bench.ask_for_image(id);
        bench.later(2 * quiet);
        assert_eq!(cut_of(bench.heard()), None, "it waits for the disk");
        bench.image_read();
        assert_eq!(bench.pieces_heard(), 16);
        assert!(bench.state.timeout().is_some_and(|at| at <= bench.now.at), "its time begins now");
        bench.later(Duration::ZERO);
        bench.later(quiet - moment);
    }
    bench.later(moment);
    assert_eq!(cut_of(bench.heard()), Some(Code::TransferSilent));
    assert!(bench.state.sessions.is_empty() && bench.state.timeout().is_none_or(|at| at > bench.now.at));
}

#[test]
fn a_machine_fetches_in_few_sessions_at_once_at_the_gateway_and_in_its_tunnel() {
    let mut bench = Bench::new();
    let places: Vec<u64> = (0..BLOB_SESSIONS_PER_MEMBER_MAX)
        .map(|_| {
            let (id, verdict) = bench.open_outside(&key(22), "blob-get");
            assert!(verdict.starts_with("ok "), "{verdict}");
            id
        })
        .collect();
    let (_, verdict) = bench.open_outside(&key(22), "blob-get");
    assert!(verdict.ends_with("code=MU-1411"), "{verdict}");
    let (_, verdict) = bench.open_outside(&key(32), "blob-get");
    assert!(verdict.starts_with("ok "), "another machine has places of its own: {verdict}");
    bench.front(FromGateway::Close { id: places[0] });
    let (_, verdict) = bench.open_outside(&key(22), "blob-get");
    assert!(verdict.starts_with("ok "), "{verdict}");

    let machine = Machine::new(20);
    let mut open = || bench.open_tunnel(&machine, "blob-get", machine.wireguard());
    let held: Vec<_> = (0..BLOB_SESSIONS_PER_MEMBER_MAX).map(|_| open()).collect();
    assert!(held.iter().all(|(_, verdict)| verdict.starts_with("ok ")));
    let (_, verdict) = open();
    assert!(verdict.ends_with("code=MU-1411"), "{verdict}");
}

#[test]
fn a_keeper_takes_few_files_at_once_from_one_member_and_no_more_than_it_can_from_all() {
    let mut bench = Bench::new();
    let dir = TempDir::new().unwrap();
    let blobs = Blobs::open(dir.path(), Room { max: 1024, member: 1024 }).unwrap();
    bench.state.on_blobs(Some(Arc::new(blobs)));
    let policy = PolicyFile::parse("[[rule]]\nfrom = 'any'\nto = 'any'\naction = ['blob-put']\n").unwrap();
    let policy = Payload::from(PolicyChange { number: 1, policy: policy.policy });
    let signed = bench.signed(Lane::Main, &policy);
    drop(bench.submit(&signed));
    bench.written();
    let crowd = BLOB_PUTS_MAX / BLOB_PUTS_PER_MEMBER_MAX;
    let seeds = (100..).step_by(3).take(crowd + 1);
    let machines: Vec<_> =
        seeds.inspect(|seed| bench.admit(*seed, Assurance::File)).map(Machine::new).collect();
    let open =
        |bench: &mut Bench, machine: &Machine| bench.open_tunnel(machine, "blob-put", machine.wireguard()).1;

    let (last, machines) = machines.split_last().unwrap();
    for machine in machines {
        for _ in 0..BLOB_PUTS_PER_MEMBER_MAX {
            let verdict = open(&mut bench, machine);
            assert!(verdict.starts_with("ok "), "{verdict}");
        }
        let verdict = open(&mut bench, machine);
        assert!(verdict.ends_with("code=MU-1411"), "{verdict}");
    }
    assert_eq!(bench.state.sessions.iter().count(), BLOB_PUTS_MAX);
    let verdict = open(&mut bench, last);
    assert!(verdict.ends_with("code=MU-1411"), "it has none, and there is no place: {verdict}");
    let (one, _) = bench.state.sessions.iter().next().unwrap();
    bench.state.on_ended(one, bench.now);
    let verdict = open(&mut bench, last);
    assert!(verdict.starts_with("ok "), "{verdict}");
}

#[test]
fn a_release_that_was_given_up_is_a_problem_of_this_machine() {
    let mut bench = Bench::new();
    bench.state.on_given_up(5);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert!(status.problems.iter().any(|problem| problem.code.0 == Code::NodeImageGivenUp));
}
