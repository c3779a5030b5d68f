//! What is signed, and the frames that carry it: one encoding each, and no signature that nobody made.

use org_trust::{
    EnrolRequest, Records, Reply, Request, UnverifiedCharter, UnverifiedReport, UnverifiedStatement,
};

use crate::fixture::ORG;

/// A charter, as the first of an org and as the one after the vectors' first.
pub fn charter(data: &[u8]) {
    let Ok(charter) = UnverifiedCharter::decode(data) else { return };
    assert_eq!(charter.to_bytes(), data);
    assert_eq!(charter.charter().id(), charter.id());
    if let Ok(verified) = charter.clone().verify_genesis() {
        assert_eq!(verified.bytes(), data);
        assert_eq!(verified.id(), charter.id());
        assert_eq!(verified.charter().org_id(), verified.org());
    }
    let mut chain = ORG.chain();
    if let Ok(id) = chain.extend(charter) {
        assert!(chain.get(&id).is_some_and(|held| held.bytes() == data || id == ORG.genesis.id()));
    }
}

/// A statement of any kind.
pub fn statement(data: &[u8]) {
    let Ok(read) = UnverifiedStatement::decode(data) else { return };
    let claim = read.claimed();
    assert_eq!(claim.bytes(), data);
    assert_eq!(claim.reencoded(), data);
    if let Ok(statement) = read.verify(&ORG.id) {
        assert!(ORG.of_kind("statement").any(|known| known == statement.bytes()));
    }
}

/// A node's report.
pub fn report(data: &[u8]) {
    let Ok(read) = UnverifiedReport::decode(data) else { return };
    assert_eq!(read.claimed().bytes(), data);
    assert_eq!(read.claimed().reencoded(), data);
    if let Ok(report) = read.verify(&ORG.id) {
        assert!(ORG.of_kind("report").any(|known| known == report.bytes()));
    }
}

/// What a newcomer asks a gateway for.
pub fn enrol(data: &[u8]) {
    let Ok(request) = EnrolRequest::decode(data) else { return };
    assert_eq!(request.encode(), data);
    if request.verify(&ORG.id, &ORG.invite_key).is_ok() {
        assert!(ORG.of_kind("enrol").any(|known| known == data));
    }
}

/// A batch of records, and every record in it.
pub fn batch(data: &[u8]) {
    let Ok(records) = Records::decode(data) else { return };
    assert_eq!(Records::encode(&records).unwrap(), data);
    for record in &records {
        assert_eq!(record.id(), record.clone().id());
        match record {
            org_trust::Record::Charter(bytes) => charter(bytes),
            org_trust::Record::Statement(bytes) => statement(bytes),
            org_trust::Record::Report(bytes) => report(bytes),
        }
    }
}

/// What a client asks after the verdict.
pub fn request(data: &[u8]) {
    let Ok(request) = Request::decode(data) else { return };
    assert_eq!(request.encode(), data);
    if let Request::Enrol(bytes) = request {
        enrol(&bytes);
    }
}

/// What it is answered.
pub fn reply(data: &[u8]) {
    let Ok(reply) = Reply::decode(data) else { return };
    assert_eq!(reply.encode(), data);
    if let Reply::Admitted(bytes) = reply {
        statement(&bytes);
    }
}
