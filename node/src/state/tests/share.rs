//! Machines that ask for their share of their disk's key; every TPM here is a real process.

use identity::{DiskShare, ShareKey, TpmId};
use org_trust::{Admit, Challenge, Quote, ShareOffer, share_question};
use tempfile::TempDir;

use super::{attestation::Station, *};
use crate::attestation::Attestation;

#[test]
fn a_machine_gets_its_share_on_the_word_of_its_tpm_and_none_once_it_is_revoked() {
    let maker = TempDir::new().unwrap();
    let station = Station::made(&maker, 50);
    let mut bench = Bench::sharing(&station);
    let first = bench.joined(&station);
    let share = bench.share(&station, 3);
    assert_eq!(share, Ok(share_key(3).share(&first)));
    assert_eq!(bench.share(&station, 3), share, "the same at each start");

    // In the middle of a session, and at the next.
    let (open, challenge) = bench.asked(&station, 3);
    let quote = station.says(&bench, open, 3, &challenge);
    bench.revoke(50);
    bench.written();
    bench.heard();
    bench.say(open, &Request::Quote(Box::new(quote)));
    assert!(!bench.heard().iter().any(|message| matches!(message, ToGateway::Data { .. })));
    let (_, verdict) = bench.open_outside(&key(52), "boot");
    assert!(verdict.ends_with("code=MU-1403"), "{verdict}");
}

#[test]
fn a_suspended_machine_gets_no_share_until_it_is_resumed() {
    let maker = TempDir::new().unwrap();
    let station = Station::made(&maker, 50);
    let mut bench = Bench::sharing(&station);
    bench.joined(&station);
    let suspend = bench.signed_suspend(50);
    drop(bench.submit(&suspend));
    bench.written();
    let (_, verdict) = bench.open_outside(&key(52), "boot");
    assert!(verdict.ends_with("code=MU-1404"), "{verdict}");
    let resume = Resume { node: key(50).public(), suspends: vec![suspend.id()] };
    let resume = bench.signed(Lane::Main, &Payload::Resume(resume));
    drop(bench.submit(&resume));
    bench.written();
    bench.heard();
    assert!(bench.share(&station, 3).is_ok());
}

#[test]
fn a_quote_of_another_session_or_another_epoch_gives_no_share() {
    let maker = TempDir::new().unwrap();
    let station = Station::made(&maker, 50);
    let mut bench = Bench::sharing(&station);
    bench.joined(&station);
    let (first, challenge) = bench.asked(&station, 3);
    let recorded = station.says(&bench, first, 3, &challenge);
    let (second, fresh) = bench.asked(&station, 3);
    assert_ne!(challenge, fresh);
    bench.say(second, &Request::Quote(Box::new(recorded.clone())));
    assert_eq!(bench.refusal(second), Code::QuoteOfAnother, "replayed");
    bench.say(first, &Request::Quote(Box::new(recorded)));
    assert!(matches!(bench.replies(first).as_slice(), [Reply::Share(_)]), "where it was made for it holds");

    let (id, challenge) = bench.asked(&station, 3);
    let other = station.says(&bench, id, 4, &challenge);
    bench.say(id, &Request::Quote(Box::new(other)));
    assert_eq!(bench.refusal(id), Code::QuoteOfAnother);
}

#[test]
fn another_machines_tpm_gives_no_share() {
    let maker = TempDir::new().unwrap();
    let (station, thief) = (Station::made(&maker, 50), Station::made(&maker, 60));
    let mut bench = Bench::sharing(&station);
    bench.joined(&station);
    // A good TPM of the same maker, in a machine that got hold of the boot key.
    let (id, _) = bench.open_outside(&station.machine.boot, "boot");
    bench.say(id, &Request::Share(Box::new(thief.wants(3))));
    assert_eq!(bench.refusal(id), Code::QuoteOfAnother, "not the one that it joined with");
    let (id, challenge) = bench.asked(&station, 3);
    let opened = station.open(&challenge).unwrap();
    let question = share_question(&bench.session(id), &station.machine.boot.public(), 3, &opened);
    bench.say(id, &Request::Quote(Box::new(thief.quote(&question))));
    assert_eq!(bench.refusal(id), Code::QuoteInvalid, "a foreign quote to the right question");
    let (id, _) = bench.asked(&station, 3);
    let guess = share_question(&bench.session(id), &station.machine.boot.public(), 3, &[0; 32]);
    bench.say(id, &Request::Quote(Box::new(station.quote(&guess))));
    assert_eq!(bench.refusal(id), Code::QuoteOfAnother, "without opening the credential");
}

#[test]
fn a_machine_that_booted_something_else_gets_no_share() {
    let maker = TempDir::new().unwrap();
    let station = Station::made(&maker, 50);
    let mut bench = Bench::sharing(&station);
    bench.joined(&station);
    for register in [11, 12, 7] {
        station.tpm.extend(register, b"something else").unwrap();
        assert_eq!(bench.share(&station, 3), Err(Code::BootNotAccepted), "register {register}");
    }
    let (id, challenge) = bench.asked(&station, 3);
    let quote = station.says(&bench, id, 3, &challenge);
    bench.say(id, &Request::Quote(Box::new(Quote { registers: [[0; 32]; 3], ..quote })));
    assert_eq!(bench.refusal(id), Code::QuoteInvalid, "what is sent is compared with what was signed");
}

#[test]
fn keys_that_are_not_bound_to_what_was_booted_get_no_share_whatever_their_tpm_says() {
    let maker = TempDir::new().unwrap();
    let mut station = Station::made(&maker, 50);
    let mut bench = Bench::sharing(&station);
    for (seed, assurance) in
        [(60, Assurance::TpmUnbound), (70, Assurance::TpmSoftware), (80, Assurance::File)]
    {
        bench.admit(seed, assurance);
        let (id, _) = bench.open_outside(&key(seed + 2), "boot");
        bench.say(id, &Request::Share(Box::new(station.wants(3))));
        assert_eq!(bench.refusal(id), Code::ShareWithheld, "{assurance:?}");
    }
    bench.admit(90, Assurance::Tpm);
    station.machine = Machine::new(90);
    assert!(bench.share(&station, 3).is_ok());
}

#[test]
fn no_gateway_gives_a_share_by_default_or_of_an_epoch_that_it_does_not_hold() {
    let maker = TempDir::new().unwrap();
    let station = Station::made(&maker, 50);
    let mut bench = Bench::sharing(&station);
    bench.joined(&station);
    let refused = |bench: &mut Bench, epoch: u32| {
        let (id, _) = bench.open_outside(&station.machine.boot, "boot");
        bench.say(id, &Request::Share(Box::new(station.wants(epoch))));
        bench.refusal(id)
    };
    assert_eq!(refused(&mut bench, 4), Code::ShareNotHeld);
    bench.state.on_attestation(Attestation::default());
    assert_eq!(refused(&mut bench, 3), Code::AttestationNotSetUp);
    bench.state.on_shares(Vec::new(), false);
    assert_eq!(refused(&mut bench, 3), Code::ShareNotHeld);
    let (id, _) = bench.open_outside(&Machine::new(99).node, "enrol");
    bench.say(id, &Request::Share(Box::new(station.wants(3))));
    assert_eq!(bench.refusal(id), Code::ActionNotAllowed, "another action's session");
}

#[test]
fn a_gateway_takes_a_share_key_from_its_operator_and_forgets_it() {
    let mut bench = Bench::new();
    let keep = |key: Vec<u8>| Ask::KeepShareKey { epoch: 3, key: key.into() };
    let Answer::Failed(failed) = bench.ask(keep(vec![1; 31])) else { panic!("taken") };
    assert_eq!(failed.code.0, Code::RequestMalformed);
    for (ask, plain) in [(keep(vec![1; 32]), true), (Ask::ForgetShareKeys {}, false)] {
        let (reply, mut answered) = oneshot::channel();
        bench.state.on_request(ask.clone(), reply, bench.now);
        let Some(Effect::Shares(order)) = bench.state.effects().next() else { panic!("no order") };
        let Answer::Failed(failed) = bench.ask(ask) else { panic!("twice at a time") };
        assert_eq!(failed.code.0, Code::Busy);
        let kept: Vec<ShareKey> = order.keep.clone().into_iter().collect();
        let epochs: Vec<u32> = kept.iter().map(ShareKey::epoch).collect();
        bench.state.on_shares_kept(Ok(kept), plain, *order);
        let Answer::ShareKeys(answer) = answered.try_recv().unwrap() else { panic!("not kept") };
        assert_eq!((answer.epochs, answer.plain), (epochs, plain));
    }
    assert!(bench.state.shares.is_empty());
}

fn share_key(epoch: u32) -> ShareKey {
    ShareKey::of(&key(1), epoch)
}

impl Station {
    fn wants(&self, epoch: u32) -> ShareOffer {
        let key = self.tpm.attestation_key().unwrap();
        ShareOffer { epoch, certificate: self.certificate.clone(), key }
    }

    fn says(&self, bench: &Bench, id: u64, epoch: u32, challenge: &Challenge) -> Quote {
        let opened = self.open(challenge).unwrap();
        let boot = self.machine.boot.public();
        self.quote(&share_question(&bench.session(id), &boot, epoch, &opened))
    }
}

impl Bench {
    /// As [`Bench::attesting`], with a share key of epoch 3.
    fn sharing(station: &Station) -> Self {
        let mut bench = Self::attesting(station);
        bench.state.on_shares(vec![share_key(3)], false);
        bench
    }

    /// It joins on the word of its TPM; the key it was admitted with.
    fn joined(&mut self, station: &Station) -> PublicKey {
        let invite = self.invite_for(Vec::<TpmId>::new());
        let (id, challenge) = self.challenged(station, &station.offer(self, &invite));
        let quote = station.answer(self, id, &invite, &challenge);
        self.say(id, &Request::Quote(Box::new(quote)));
        self.written();
        assert!(matches!(self.replies(id).first(), Some(Reply::Admitted(_))));
        self.state.roster.get(&station.machine.node.public()).unwrap().first()
    }

    pub(super) fn admit(&mut self, seed: u8, assurance: Assurance) {
        let (machine, org) = (Machine::new(seed), self.state.org);
        let admit = Admit::by_admin(&org, machine.keys(), admin().public(), name("new"), assurance);
        let statement = self.signed(Lane::Main, &Payload::from(admit));
        drop(self.submit(&statement));
        self.written();
    }

    fn asked(&mut self, by: &Station, epoch: u32) -> (u64, Challenge) {
        let (id, verdict) = self.open_outside(&by.machine.boot, "boot");
        assert!(verdict.contains("ok"), "{verdict}");
        self.say(id, &Request::Share(Box::new(by.wants(epoch))));
        (id, self.challenge(id))
    }

    fn share(&mut self, by: &Station, epoch: u32) -> Result<DiskShare, Code> {
        let (id, challenge) = self.asked(by, epoch);
        let quote = by.says(self, id, epoch, &challenge);
        self.say(id, &Request::Quote(Box::new(quote)));
        match self.replies(id).as_slice() {
            [Reply::Share(share)] => Ok(share.clone()),
            [Reply::Refused(code)] => Err(*code),
            other => panic!("{other:?}"),
        }
    }
}
