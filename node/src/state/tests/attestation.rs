//! Newcomers for whom a TPM speaks, at the gateway; every TPM here is a real process.

use attest::{Accepted, certificate_in, tpm_of};
use identity::{SessionId, TpmId};
use lab::Swtpm;
use org_trust::{Challenge, Offer, Quote, TrustBundle, question};
use tempfile::TempDir;
use tpm_seal::{Tpm, TpmError};

use super::*;
use crate::attestation::Attestation;

#[test]
fn a_machine_is_admitted_on_the_word_of_its_tpm() {
    let maker = TempDir::new().unwrap();
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&newcomer);
    let invite = bench.invite_for(vec![newcomer.id]);
    let (id, challenge) = bench.challenged(&newcomer, &newcomer.offer(&bench, &invite));
    let quote = newcomer.answer(&bench, id, &invite, &challenge);
    bench.say(id, &Request::Quote(Box::new(quote)));
    assert_eq!(bench.heard(), [], "nothing is said before the disk has it");
    bench.written();
    let replies = bench.replies(id);
    let Some(Reply::Admitted(statement)) = replies.first() else { panic!("{replies:?}") };
    let member = bench.state.roster.get(&newcomer.machine.node.public()).unwrap().clone();
    assert_eq!((member.assurance, member.tpm), (Assurance::TpmAttested, Some(newcomer.id)));

    let (id, _) = bench.open_outside(&newcomer.machine.node, "enrol");
    bench.say(id, &Request::Attest(Box::new(newcomer.offer(&bench, &invite))));
    bench.written();
    let again = bench.replies(id);
    assert_eq!(again.first(), Some(&Reply::Admitted(statement.clone())), "it is not asked twice");
}

#[test]
fn an_invite_that_asks_for_a_tpms_word_is_not_used_without_or_by_another() {
    let maker = TempDir::new().unwrap();
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&newcomer);
    let refused = |bench: &mut Bench, request: Request| {
        let (id, _) = bench.open_outside(&newcomer.machine.node, "enrol");
        bench.say(id, &request);
        bench.refusal(id)
    };
    let any = bench.invite_for(Vec::new());
    let plain = newcomer.machine.request(&bench, &any, 9);
    assert_eq!(refused(&mut bench, Request::Enrol(plain)), Code::AttestationRequired);
    let claim = newcomer.offer(&bench, &any).request;
    assert_eq!(refused(&mut bench, Request::Enrol(claim)), Code::AttestationRequired, "a claim is no word");
    let open = bench.invite(9, 8);
    let claim = newcomer.request(&bench, &open, 8);
    assert_eq!(refused(&mut bench, Request::Enrol(claim)), Code::AttestationRequired, "nor elsewhere");

    let other = bench.invite_for(vec![TpmId([1; 32])]);
    let offer = newcomer.offer(&bench, &other);
    assert_eq!(refused(&mut bench, Request::Attest(Box::new(offer))), Code::EkNotInvited);
    let unknown = newcomer.offer(&bench, &StatementId([1; 32]));
    assert_eq!(refused(&mut bench, Request::Attest(Box::new(unknown))), Code::InviteUnknown);

    bench.state.on_attestation(Attestation::default());
    let offer = newcomer.offer(&bench, &any);
    assert_eq!(refused(&mut bench, Request::Attest(Box::new(offer))), Code::AttestationNotSetUp);
}

#[test]
fn a_software_tpm_is_refused_where_only_a_vendors_root_counts() {
    let (maker, vendor) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&Station::made(&vendor, 60));
    let invite = bench.invite_for(Vec::new());
    for certificate in [newcomer.certificate.clone(), vec![0x30, 0], newcomer.maker_der()] {
        let offer = Offer { certificate, ..newcomer.offer(&bench, &invite) };
        let (id, _) = bench.open_outside(&newcomer.machine.node, "enrol");
        bench.say(id, &Request::Attest(Box::new(offer)));
        assert_eq!(bench.refusal(id), Code::EkUntrusted);
    }
}

#[test]
fn an_attestation_key_that_signs_anything_is_refused() {
    let maker = TempDir::new().unwrap();
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&newcomer);
    let invite = bench.invite_for(Vec::new());
    // The attributes: restricted is their bit 16.
    let unrestricted = |key: &mut Vec<u8>| key[5] ^= 1;
    let cut = |key: &mut Vec<u8>| key.truncate(9);
    for change in [unrestricted, cut] {
        let mut offer = newcomer.offer(&bench, &invite);
        change(&mut offer.key);
        let (id, _) = bench.open_outside(&newcomer.machine.node, "enrol");
        bench.say(id, &Request::Attest(Box::new(offer)));
        assert_eq!(bench.refusal(id), Code::AttestationKeyUnfit);
    }
}

#[test]
fn a_quote_by_another_tpm_or_without_the_credential_is_refused() {
    let maker = TempDir::new().unwrap();
    let (newcomer, other) = (Station::made(&maker, 50), Station::made(&maker, 60));
    let mut bench = Bench::attesting(&newcomer);
    let invite = bench.invite_for(Vec::new());

    let (id, challenge) = bench.challenged(&newcomer, &newcomer.offer(&bench, &invite));
    let question = newcomer.question(&bench, id, &invite, &challenge);
    bench.say(id, &Request::Quote(Box::new(other.quote(&question))));
    assert_eq!(bench.refusal(id), Code::QuoteInvalid, "another TPM's quote, to the right question");

    // A certificate of another TPM: its credential does not open here, and nobody can guess it.
    let stolen = Offer {
        certificate: other.certificate.clone(),
        request: newcomer.request_as(&bench, &invite, 9, other.id),
        ..newcomer.offer(&bench, &invite)
    };
    let (id, challenge) = bench.challenged(&newcomer, &stolen);
    assert!(matches!(newcomer.open(&challenge), Err(TpmError::CredentialRefused)));
    assert!(matches!(other.open(&challenge), Err(TpmError::CredentialRefused)), "made for both keys");
    let guess = newcomer.question_with(&bench, id, &invite, &[0; 32]);
    bench.say(id, &Request::Quote(Box::new(newcomer.quote(&guess))));
    assert_eq!(bench.refusal(id), Code::QuoteOfAnother);

    // A request that names another TPM than the certificate.
    let lying = Offer {
        request: newcomer.request_as(&bench, &invite, 9, other.id),
        ..newcomer.offer(&bench, &invite)
    };
    let (id, _) = bench.open_outside(&newcomer.machine.node, "enrol");
    bench.say(id, &Request::Attest(Box::new(lying)));
    assert_eq!(bench.refusal(id), Code::QuoteOfAnother);
}

#[test]
fn a_recorded_attestation_replayed_in_a_new_session_is_refused() {
    let maker = TempDir::new().unwrap();
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&newcomer);
    let invite = bench.invite_for(Vec::new());
    let offer = newcomer.offer(&bench, &invite);
    let (first, challenge) = bench.challenged(&newcomer, &offer);
    let recorded = newcomer.answer(&bench, first, &invite, &challenge);
    let (second, fresh) = bench.challenged(&newcomer, &offer);
    assert_ne!(challenge, fresh);
    bench.say(second, &Request::Quote(Box::new(recorded.clone())));
    assert_eq!(bench.refusal(second), Code::QuoteOfAnother);
    // In the session it was made for it is as good as ever.
    bench.say(first, &Request::Quote(Box::new(recorded)));
    bench.written();
    assert!(matches!(bench.replies(first).first(), Some(Reply::Admitted(_))));
}

#[test]
fn a_tpm_that_spoke_for_one_machine_does_not_speak_for_the_keys_of_another() {
    let maker = TempDir::new().unwrap();
    let honest = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&honest);
    let invite = bench.invite_for(Vec::new());
    // In the middle, with keys of its own, and with the honest machine's TPM answering what it is asked.
    let thief = Machine::new(70);
    let request = honest.request_of(&thief, &bench, &invite, 9, honest.id);
    let offer = Offer { request, ..honest.offer(&bench, &invite) };
    let (id, _) = bench.open_outside(&thief.node, "enrol");
    bench.say(id, &Request::Attest(Box::new(offer)));
    let challenge = bench.challenge(id);
    let quote = honest.answer(&bench, id, &invite, &challenge);
    bench.say(id, &Request::Quote(Box::new(quote)));
    assert_eq!(bench.refusal(id), Code::QuoteOfAnother);
    assert_eq!(bench.state.standing_of(&thief.node.public(), Purpose::Outside("enrol")), Standing::Unknown);
}

#[test]
fn a_machine_that_was_started_otherwise_is_refused_and_the_register_is_named() {
    let maker = TempDir::new().unwrap();
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&newcomer);
    let invite = bench.invite_for(Vec::new());
    for register in [11, 12, 7] {
        newcomer.tpm.extend(register, b"something else").unwrap();
        let (id, challenge) = bench.challenged(&newcomer, &newcomer.offer(&bench, &invite));
        let quote = newcomer.answer(&bench, id, &invite, &challenge);
        let lied = Quote { registers: [[0; 32]; 3], ..quote.clone() };
        bench.say(id, &Request::Quote(Box::new(quote)));
        assert_eq!(bench.refusal(id), Code::BootNotAccepted, "register {register}");
        let (id, challenge) = bench.challenged(&newcomer, &newcomer.offer(&bench, &invite));
        let quote = newcomer.answer(&bench, id, &invite, &challenge);
        bench.say(id, &Request::Quote(Box::new(Quote { registers: lied.registers, ..quote })));
        assert_eq!(bench.refusal(id), Code::QuoteInvalid, "what is sent is compared with what was signed");
    }
}

#[test]
fn machines_that_do_not_answer_are_bounded_in_number_and_time() {
    let maker = TempDir::new().unwrap();
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&newcomer);
    let invite = bench.invite_for(Vec::new());
    let offer = newcomer.offer(&bench, &invite);
    let waiting: Vec<u64> = (0..identity::limits::ATTESTATIONS_PENDING_MAX)
        .map(|_| bench.challenged(&newcomer, &offer).0)
        .collect();
    let (id, _) = bench.open_outside(&newcomer.machine.node, "enrol");
    bench.say(id, &Request::Attest(Box::new(offer.clone())));
    assert_eq!(bench.refusal(id), Code::Busy);

    let due = bench.state.timeout().unwrap();
    assert!(due <= bench.now.at + Duration::from_millis(identity::limits::ATTESTATION_ANSWER_MS));
    bench.now.at += Duration::from_millis(identity::limits::ATTESTATION_ANSWER_MS);
    bench.state.on_timeout(bench.now);
    bench.perform();
    let late = Reply::Refused(Code::HandshakeTimeout).encode();
    let mut refused = 0;
    // As the front reads: its queue takes no more at once.
    for _ in 0..4 {
        let frames = bench.heard().into_iter();
        refused += frames.filter(|m| matches!(m, ToGateway::Data { frame, .. } if frame.0 == late)).count();
        bench.state.on_outside(Outside::Drained(1), bench.now);
        bench.perform();
    }
    assert_eq!(refused, waiting.len());
    let (_, challenge) = bench.challenged(&newcomer, &offer);
    assert!(!challenge.credential.is_empty(), "there is room again");
}

#[test]
fn a_session_says_what_its_turn_is_and_nothing_else() {
    let maker = TempDir::new().unwrap();
    let newcomer = Station::made(&maker, 50);
    let mut bench = Bench::attesting(&newcomer);
    let invite = bench.invite_for(Vec::new());
    let nothing = Quote { registers: [[0; 32]; 3], attest: vec![1], signature: vec![1] };
    let offer = newcomer.offer(&bench, &invite);
    let (id, _) = bench.open_outside(&newcomer.machine.node, "enrol");
    bench.say(id, &Request::Quote(Box::new(nothing.clone())));
    assert_eq!(bench.refusal(id), Code::ActionNotAllowed, "nothing was asked");
    let (id, _) = bench.challenged(&newcomer, &offer);
    bench.say(id, &Request::Attest(Box::new(offer.clone())));
    assert_eq!(bench.refusal(id), Code::ActionNotAllowed, "it was asked for a quote");
    let (id, _) = bench.challenged(&newcomer, &offer);
    bench.say(id, &Request::Quote(Box::new(nothing)));
    assert_eq!(bench.refusal(id), Code::QuoteInvalid);
    let (id, _) = bench.open_outside(&key(12), "boot");
    bench.say(id, &Request::Attest(Box::new(offer)));
    assert_eq!(bench.refusal(id), Code::ActionNotAllowed, "another action's session");
}

/// A machine with a TPM that has a maker.
pub(super) struct Station {
    pub(super) machine: Machine,
    pub(super) tpm: Tpm,
    pub(super) certificate: Vec<u8>,
    pub(super) id: TpmId,
    maker: TrustBundle,
    _swtpm: Swtpm,
    _home: TempDir,
}

impl Station {
    pub(super) fn made(maker: &TempDir, seed: u8) -> Self {
        let home = TempDir::new().unwrap();
        let mut swtpm = Swtpm::start(&home.path().join("tpm")).unwrap();
        let maker = swtpm.manufacture(maker.path()).unwrap();
        let tpm = Tpm::open(swtpm.device()).unwrap();
        let kept = tpm.endorsement_certificate().unwrap();
        let certificate = certificate_in(&kept).unwrap().to_vec();
        Self {
            machine: Machine::new(seed),
            tpm,
            id: tpm_of(&certificate).unwrap(),
            certificate,
            maker: TrustBundle::read(&std::fs::read(maker).unwrap()).unwrap(),
            _swtpm: swtpm,
            _home: home,
        }
    }

    fn maker_der(&self) -> Vec<u8> {
        self.maker.certificates()[0].der().to_vec()
    }

    pub(super) fn offer(&self, bench: &Bench, invite: &StatementId) -> Offer {
        let request = self.request(bench, invite, 9);
        Offer { request, certificate: self.certificate.clone(), key: self.tpm.attestation_key().unwrap() }
    }

    fn request(&self, bench: &Bench, invite: &StatementId, secret: u8) -> Vec<u8> {
        self.request_as(bench, invite, secret, self.id)
    }

    fn request_as(&self, bench: &Bench, invite: &StatementId, secret: u8, tpm: TpmId) -> Vec<u8> {
        self.request_of(&self.machine, bench, invite, secret, tpm)
    }

    fn request_of(
        &self,
        machine: &Machine,
        bench: &Bench,
        invite: &StatementId,
        secret: u8,
        tpm: TpmId,
    ) -> Vec<u8> {
        let (org, key, redeemer) = (bench.state.org, key(secret), gateway_key().public());
        let redemption = Redemption { invite: *invite, key: &key, redeemer };
        let attested = Assurance::TpmAttested;
        EnrolRequest::sign(&org, machine.keys(), redemption, name("new"), attested, tpm.0).encode()
    }

    pub(super) fn open(&self, challenge: &Challenge) -> Result<[u8; 32], TpmError> {
        let opened = self.tpm.open_credential(&challenge.credential, &challenge.seed)?;
        Ok(opened.as_slice().try_into().unwrap())
    }

    fn question(&self, bench: &Bench, id: u64, invite: &StatementId, challenge: &Challenge) -> [u8; 32] {
        self.question_with(bench, id, invite, &self.open(challenge).unwrap())
    }

    fn question_with(&self, bench: &Bench, id: u64, invite: &StatementId, opened: &[u8; 32]) -> [u8; 32] {
        let request = EnrolRequest::decode(&self.request(bench, invite, 9)).unwrap();
        question(&bench.session(id), request.claimed(), opened)
    }

    pub(super) fn quote(&self, question: &[u8; 32]) -> Quote {
        let tpm_seal::Quote { registers, attest, signature } = self.tpm.quote(question).unwrap();
        Quote { registers, attest, signature }
    }

    pub(super) fn answer(
        &self,
        bench: &Bench,
        id: u64,
        invite: &StatementId,
        challenge: &Challenge,
    ) -> Quote {
        self.quote(&self.question(bench, id, invite, challenge))
    }
}

impl Bench {
    /// A gateway that knows the maker of this machine's TPM, and accepts machines that measured nothing.
    pub(super) fn attesting(station: &Station) -> Self {
        let mut bench = Self::new();
        let accepted = Accepted { secure_boot: vec![[0; 32]], images: vec![[0; 32]] };
        bench.state.on_attestation(Attestation { makers: Some(station.maker.clone()), accepted });
        bench
    }

    pub(super) fn invite_for(&mut self, tpms: Vec<TpmId>) -> StatementId {
        self.invite_as(Invite {
            key: key(9).public(),
            uses: 9,
            redeemer: gateway_key().public(),
            labels: Vec::new(),
            expires_unix_s: 0,
            note: String::new(),
            approval: false,
            attestation: true,
            tpms,
        })
    }

    pub(super) fn challenged(&mut self, by: &Station, offer: &Offer) -> (u64, Challenge) {
        let (id, _) = self.open_outside(&by.machine.node, "enrol");
        self.say(id, &Request::Attest(Box::new(offer.clone())));
        (id, self.challenge(id))
    }

    pub(super) fn challenge(&mut self, id: u64) -> Challenge {
        let Some(ToGateway::Data { id: of, frame }) = self.heard_last() else { panic!("no challenge") };
        assert_eq!(of, id);
        let Reply::Challenge(challenge) = Reply::decode(&frame.0).unwrap() else { panic!("{frame:?}") };
        *challenge
    }

    /// What a session ends with, which is a refusal.
    pub(super) fn refusal(&mut self, id: u64) -> Code {
        match self.replies(id).as_slice() {
            [Reply::Refused(code)] => *code,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn session(&self, id: u64) -> SessionId {
        let stage = self.state.outside.stages.iter().find(|((_, of), _)| *of == id).unwrap().1;
        let outside::Stage::Open { key, .. } = stage else { panic!("not open") };
        self.state.sessions.get(*key).unwrap().proof.session()
    }
}
