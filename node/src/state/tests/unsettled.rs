//! A machine whose settings name the end of what counts, and that has not got it.

use member_crdt::Replica;
use org_trust::{Cancel, Cut, Gateway};

use super::{healing::other, *};

const OPEN: &str = " code=MU-1417";

#[test]
fn a_machine_that_lacks_the_end_of_a_cut_keeps_in_step_and_serves_nobody_until_it_has_it() {
    let mut bench = Bench::compared();
    bench.fails(20, Purpose::Sync, Code::PeerUnreachable);
    bench.fails(30, Purpose::Sync, Code::PeerUnreachable);
    let (mut two, mut three) = (bench.sync(20), bench.sync(30));
    let mut link = bench.open_tunnel(&Machine::new(20), "link", Machine::new(20).wireguard()).0.unwrap();
    let end = bench.end_of_the_cut();
    bench.deeds.clear();
    bench.settle_without_the_admin(&end);
    let cut = link.cut.try_recv().unwrap();
    assert_eq!(cut.code, Code::Unsettled);
    assert_eq!(
        bench.deeds.first(),
        Some(&Deed::CloseGate(Machine::new(20).wireguard())),
        "{:?}",
        bench.deeds
    );
    assert!(two.cut.try_recv().is_err() && three.cut.try_recv().is_err(), "its sessions of sync stay");
    assert_eq!(bench.state.members_with_tunnel(), 2);
    for action in ["link", "ping"] {
        let (_, verdict) = bench.open_tunnel(&Machine::new(20), action, Machine::new(20).wireguard());
        assert!(verdict.ends_with(OPEN), "{verdict}");
    }
    assert!(bench.open_outside(&key(22), "boot").1.ends_with(OPEN));
    assert!(bench.open_outside(&key(50), "enrol").1.ends_with(OPEN));
    assert!(bench.open_outside(&key(4), "submit").1.starts_with("ok "), "an admin may bring it");
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!((status.state, status.problems[0].code.0), (Stage::Alone, Code::Unsettled));
    assert_eq!(status.org.unwrap().former, 0);
    // Those that were dropped are dialled again, and let in.
    bench.deeds.clear();
    for node in [20, 30] {
        bench.state.on_ended(bench.session_with(node), bench.now);
    }
    for _ in 0..5 {
        bench.later(Duration::from_secs(1));
    }
    assert!(bench.deeds.contains(&Deed::Dial(Purpose::Sync)), "{:?}", bench.deeds);
    let mut two = bench.sync(20);
    bench.converse(20, &mut two, &mut other(&[Record::from(&end)]));
    assert!(bench.state.is_member());
    assert!(bench.link(30).starts_with("ok "));
    let Answer::Status(status) = bench.ask(Ask::Status {}) else { panic!("no status") };
    assert_eq!((status.state, status.problems), (Stage::Ready, vec![]));
}

#[test]
fn who_is_unsettled_in_anothers_list_may_compare_lists_there_and_nothing_else() {
    let mut bench = Bench::compared();
    bench.state.on_resumed(bench.now);
    // The machine itself was admitted by an admin who stays.
    let (org, me) = (bench.state.org, Machine::new(10));
    let end = bench.end_of_the_cut();
    bench.settle_without_the_admin(&end);
    let admit = org_trust::Admit::by_admin(&org, me.keys(), key(4).public(), name("one"), Assurance::File);
    let place = bench.state.replica.next_place(&key(4).public(), Lane::Main).unwrap();
    let admit = Statement::sign(&org, &key(4), place, &Payload::from(admit)).unwrap();
    drop(bench.submit(&admit));
    bench.written();
    assert!(bench.state.is_member());
    assert!(bench.link(20).ends_with(OPEN));
    let thief = Machine::new(50);
    let by = admin().public();
    let stolen = org_trust::Admit::by_admin(&org, thief.keys(), by, name("four"), Assurance::File);
    let place = end.next_place(bench.state.replica.chain().genesis().id());
    let stolen = Statement::sign(&org, &admin(), place, &Payload::from(stolen)).unwrap();
    let mut two = bench.sync(20);
    bench.converse(20, &mut two, &mut Replica::new(&fixture::genesis(0)).unwrap());
    assert!(!bench.state.is_in_step(), "it vouches for nothing");
    bench.state.take(&[Record::from(&end), Record::from(&stolen)], bench.now);
    bench.perform();
    bench.written();
    assert!(bench.state.roster.get(&thief.node.public()).is_none(), "beyond the end");
    let (_, verdict) = bench.open_tunnel(&thief, "sync", thief.wireguard());
    assert!(verdict.ends_with(" code=MU-1401"), "{verdict}");
    bench.converse(20, &mut two, &mut other(&[]));
    assert!(bench.state.roster.good().count() == 3);
}

impl Bench {
    /// What the admin signs last, and this machine does not hear.
    fn end_of_the_cut(&self) -> Statement {
        let cancel = Cancel { invite: StatementId([9; 32]), tip: None };
        self.signed(Lane::Main, &Payload::Cancel(cancel))
    }

    /// Settings with another admin: what the one that there was signed counts up to this.
    fn settle_without_the_admin(&mut self, end: &Statement) {
        let mut next = self.state.replica.chain().head().charter().successor();
        next.admins = vec![org_trust::Admin { key: key(4).public(), name: name("ben") }];
        next.cuts = vec![Cut { key: admin().public(), lane: Lane::Main, tip: end.id() }];
        next.gateways = vec![Gateway { key: gateway_key().public(), node: key(10).public() }];
        self.state.take(&[Record::Charter(fixture::settings(next).to_bytes())], self.now);
        self.perform();
        self.written();
    }
}
