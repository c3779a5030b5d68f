//! Machines and admins at the gateway.

use super::*;

#[test]
fn a_machine_with_an_invite_is_admitted_once_it_is_on_disk_and_asks_again_for_free() {
    let mut bench = Bench::new();
    let invite = bench.invite(1, 9);
    let newcomer = Machine::new(50);
    let request = newcomer.request(&bench, &invite, 9);
    let (id, verdict) = bench.open_outside(&newcomer.node, "enrol");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Enrol(request.clone()));
    assert_eq!(bench.heard(), [], "nothing is said before the disk has it");
    assert_eq!(
        bench.state.standing_of(&newcomer.node.public(), Purpose::Outside("enrol")),
        Standing::Unknown
    );
    bench.written();
    let replies = bench.replies(id);
    let Some(Reply::Admitted(statement)) = replies.first() else { panic!("{replies:?}") };
    assert!(matches!(replies.last(), Some(Reply::End { .. })));
    assert!(matches!(
        bench.state.standing_of(&newcomer.node.public(), Purpose::Outside("enrol")),
        Standing::Good(_)
    ));

    let (id, _) = bench.open_outside(&newcomer.node, "enrol");
    bench.say(id, &Request::Enrol(request));
    bench.written();
    assert_eq!(bench.replies(id).first(), Some(&Reply::Admitted(statement.clone())), "the same again");

    let other = Machine::new(60);
    let (id, _) = bench.open_outside(&other.node, "enrol");
    bench.say(id, &Request::Enrol(other.request(&bench, &invite, 9)));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::InviteUsedUp)], "the one use is spent");
}

#[test]
fn a_request_with_a_wrong_secret_for_another_gateway_or_by_another_key_is_refused() {
    let mut bench = Bench::new();
    let invite = bench.invite(9, 9);
    let newcomer = Machine::new(50);
    let wrong_secret = newcomer.request(&bench, &invite, 8);
    let unknown_invite = newcomer.request_for(&bench, StatementId([1; 32]), gateway_key().public(), 9);
    let other_gateway = newcomer.request_for(&bench, invite, key(77).public(), 9);
    for (request, by, code) in [
        (wrong_secret, &newcomer.node, Code::EnrolKeyUnproven),
        (unknown_invite, &newcomer.node, Code::InviteUnknown),
        (other_gateway, &newcomer.node, Code::NotTheGateway),
        (newcomer.request(&bench, &invite, 9), &key(78), Code::EnrolKeyUnproven),
    ] {
        let (id, _) = bench.open_outside(by, "enrol");
        bench.say(id, &Request::Enrol(request));
        assert_eq!(bench.replies(id), [Reply::Refused(code)]);
    }
    let boot_key_of_another = Machine { boot: key(12), ..Machine::new(50) };
    let (id, _) = bench.open_outside(&boot_key_of_another.node, "enrol");
    bench.say(id, &Request::Enrol(boot_key_of_another.request(&bench, &invite, 9)));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::EnrolKeyTaken)]);
}

#[test]
fn a_session_at_the_gateway_carries_one_question_of_its_own_action() {
    let mut bench = Bench::new();
    let (id, _) = bench.open_outside(&key(12), "boot");
    bench.say(id, &Request::Fetch(org_trust::Select::Everything));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::ActionNotAllowed)]);
    bench.say(id, &Request::Fetch(org_trust::Select::Everything));
    assert!(matches!(bench.heard().as_slice(), [ToGateway::Cut { .. }]), "it is over");
}

#[test]
fn a_revoked_boot_key_is_told_so_at_the_gateway_and_the_reference_says_by_whom() {
    let mut bench = Bench::new();
    let (id, verdict) = bench.open_outside(&key(22), "boot");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Boot { charter: bench.state.replica.chain().head().id(), floor: 0 });
    bench.written();
    assert!(matches!(bench.replies(id).last(), Some(Reply::End { .. })));
    bench.revoke(20);
    let (_, verdict) = bench.open_outside(&key(22), "boot");
    assert!(verdict.ends_with(" code=MU-1403"), "{verdict}");
    let reference = verdict.split(['=', ' ']).nth(2).unwrap().to_owned();
    let Answer::Why(why) = bench.ask(Ask::Why { reference }) else { panic!("nothing remembered") };
    assert_eq!(why.code.0, Code::Revoked);
    assert!(why.detail.contains("by ada") && why.detail.contains("stolen"), "{}", why.detail);
    assert!(why.detail.contains("known here since 1970-01-01T"), "{}", why.detail);
}

#[test]
fn a_machine_that_wants_approval_is_told_to_wait_and_then_gets_the_same_admission() {
    let mut bench = Bench::new();
    let invite = bench.invite_with(1, 9, true);
    let newcomer = Machine::new(50);
    let node = newcomer.node.public();
    let request = newcomer.request(&bench, &invite, 9);
    let (id, _) = bench.open_outside(&newcomer.node, "enrol");
    bench.say(id, &Request::Enrol(request.clone()));
    assert_eq!(bench.replies(id), [Reply::Refused(Code::ApprovalPending)]);
    bench.written();
    let admit = bench.state.roster.pending().admits[0].admit;
    let (_, verdict) = bench.open_outside(&newcomer.node, "enrol");
    assert!(verdict.ends_with("code=MU-1402"), "still waiting: {verdict}");
    assert_eq!(
        bench.state.standing_of(&node, Purpose::Outside("enrol")),
        Standing::Barred(Code::ApprovalPending)
    );
    drop(bench.heard());

    let approval = bench.signed(Lane::Main, &Payload::Cosign(Cosign { target: admit }));
    drop(bench.submit(&approval));
    bench.written();
    let (id, verdict) = bench.open_outside(&newcomer.node, "enrol");
    assert!(verdict.starts_with("ok "), "{verdict}");
    bench.say(id, &Request::Enrol(request));
    bench.written();
    let held = bench.state.replica.statement(&admit).unwrap().bytes().to_vec();
    assert_eq!(bench.replies(id).first(), Some(&Reply::Admitted(held)), "no second use is spent");
}

#[test]
fn a_key_that_was_revoked_before_it_asks_is_refused_for_good_and_spends_nothing() {
    let mut bench = Bench::new();
    let invite = bench.invite(1, 9);
    bench.revoke(50);
    bench.written();
    for (seed, admitted) in [(50, false), (60, true)] {
        let newcomer = Machine::new(seed);
        let (id, _) = bench.open_outside(&newcomer.node, "enrol");
        bench.say(id, &Request::Enrol(newcomer.request(&bench, &invite, 9)));
        bench.written();
        match bench.replies(id).first() {
            Some(Reply::Admitted(_)) => assert!(admitted),
            reply => assert_eq!((reply, admitted), (Some(&Reply::Refused(Code::Revoked)), false)),
        }
    }
}

#[test]
fn long_answers_are_said_as_the_front_reads_and_leave_room_for_others() {
    let mut bench = Bench::new();
    let keys: Vec<_> = (0..4).map(|_| bench.open_outside(&key(22), "boot").0).collect();
    let sessions: Vec<SessionKey> = bench.state.sessions.iter().map(|(key, _)| key).collect();
    for key in sessions {
        bench.state.answer_outside(key, vec![vec![0]; 100]);
    }
    let (_, verdict) = bench.open_outside(&key(22), "boot");
    assert!(verdict.starts_with("ok "), "another machine is let in meanwhile: {verdict}");
    let (mut frames, mut ended) = (0, Vec::new());
    loop {
        let heard = bench.heard();
        if heard.is_empty() {
            break;
        }
        assert!(heard.len() < 128, "{} at once", heard.len());
        for message in heard {
            match message {
                ToGateway::Data { .. } => frames += 1,
                ToGateway::Cut { id, code: None, .. } => ended.push(id),
                message @ (ToGateway::Challenge { .. }
                | ToGateway::Verdict { .. }
                | ToGateway::Cut { .. }
                | ToGateway::Charters { .. }) => panic!("{message:?}"),
            }
        }
        bench.state.on_outside(Outside::Drained(1), bench.now);
    }
    assert_eq!((frames, ended), (400, keys));
}

#[tokio::test]
async fn a_front_that_loses_a_message_is_closed() {
    let mut bench = Bench::new();
    for id in 1000..1256 {
        bench.front(FromGateway::Finish { id, proof: Vec::new().into() });
    }
    let closed = tokio::time::timeout(Duration::ZERO, bench.broken.notified()).await;
    assert!(closed.is_err(), "all fit");
    bench.front(FromGateway::Finish { id: 2000, proof: Vec::new().into() });
    bench.broken.notified().await;
}

#[test]
fn a_reference_is_read_back_as_it_was_told() {
    let reference = Bench::new().state.new_reference();
    assert_eq!(Reference::from_hex(&reference.to_string()), Ok(reference));
}

#[test]
fn a_member_makes_a_key_for_the_gateway_role_and_asks_for_it_with_its_node_key() {
    let mut bench = Bench::new();
    let ask = || Ask::PrepareGateway { tls_key: vec![7; 32].into(), address: "gw.example:8443".to_owned() };
    let Answer::GatewayRequest(first) = bench.ask(ask()) else { panic!("no request") };
    assert_eq!((first.key.0, first.new), (gateway_key().public(), false), "it has the role and its key");

    let mut next = bench.state.replica.chain().head().charter().successor();
    next.gateways.clear();
    bench.state.take(&[Record::Charter(fixture::settings(next).to_bytes())], bench.now);
    let (reply, mut answered) = oneshot::channel();
    bench.state.on_request(ask(), reply, bench.now);
    let order = bench
        .state
        .effects()
        .find_map(|effect| if let Effect::MakeRoleKey(order) = effect { Some(*order) } else { None });
    assert!(matches!(bench.ask(ask()), Answer::Failed(failed) if failed.code.0 == Code::Busy));
    bench.state.on_role_key(Ok(key(99)), order.unwrap(), bench.now);
    let Ok(Answer::GatewayRequest(made)) = answered.try_recv() else { panic!("no request") };
    assert_eq!(
        (made.key.0, made.new),
        (key(99).public(), true),
        "a key that lost the role is not used again"
    );
    let request = org_trust::GatewayRequest::parse(&made.line).unwrap().verify(&bench.state.org).unwrap();
    assert_eq!((request.node(), request.gateway()), (key(10).public(), key(99).public()));
}
