//! Machines that fetch an image, at the gateway and in a tunnel.

use identity::BlobHash;
use org_trust::{BlobReply, BlobRequest};

use super::*;

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
fn a_release_that_was_given_up_is_a_problem_of_this_machine() {
    let mut bench = Bench::new();
    bench.state.on_given_up(5);
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert!(status.problems.iter().any(|problem| problem.code.0 == Code::NodeImageGivenUp));
}
