//! What is asked of a gateway: admission once, and at each start what a member needs.

use std::time::Duration;

use conn_auth::Action;
use identity::{
    BlobHash, Code, DiskShare, Heads, Outline, SecretKey, SessionId,
    limits::{BLOB_NODES_MAX, BLOB_PIECE_BYTES, BLOB_PIECES_MAX, BOOT_RECORDS_BYTES_MAX, DIAL_DEADLINE_MS},
};
use org_trust::{
    BlobReply, BlobRequest, CharterChain, EnrolRequest, Record, Records, Reply, Request, ShareOffer,
    Statement, TrustBundle, question, share_question,
};
use tokio::time::timeout;
use transport::{
    Address, ClientTls,
    client::{GatewayDial, GatewaySession, dial_gateway},
};

use crate::{
    attestation::Speaker,
    failure::{Failure, Outcome},
    keys::Boot,
    pinned::{Pinned, read_admit},
};

/// What a returning member is given: records of the org, taken as bytes. musterd verifies them.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<u8>,
    pub(crate) count: u64,
}

/// What a machine asks for, and who speaks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a EnrolRequest,
    pub(crate) speaker: Option<&'a Speaker<'a>>,
}

/// Asks one gateway to admit this machine. `chain` keeps what was verified on the way.
pub(crate) async fn enrol(
    gateway: &Address,
    pinned: &Pinned,
    chain: &mut CharterChain,
    boot: &Boot,
    node: &SecretKey,
    Asked { request, speaker }: Asked<'_>,
) -> Outcome<Statement> {
    // Before the gateway waits: a TPM may take seconds to make its key.
    let first = match speaker {
        None => Request::Enrol(request.encode()),
        Some(speaker) => Request::Attest(Box::new(speaker.offer(request)?)),
    };
    let (mut session, id) = dial(gateway, pinned, chain, boot, node, "enrol").await?;
    send(&mut session, &first).await?;
    let reply = match (receive(&mut session).await?, speaker) {
        (Reply::Challenge(challenge), Some(speaker)) => {
            let quote = speaker.answer(&challenge, |opened| question(&id, request.claimed(), opened))?;
            send(&mut session, &Request::Quote(Box::new(quote))).await?;
            receive(&mut session).await?
        }
        // Also to a machine that it admitted before.
        (other, _) => other,
    };
    match reply {
        Reply::Admitted(bytes) => {
            let admit = read_admit(&bytes, &chain.org());
            let admit = admit.ok_or_else(|| unexpected("its admission does not hold"))?;
            session.close().await;
            Ok(admit)
        }
        Reply::Refused(Code::ApprovalPending) => {
            let key = node.public().short();
            Err(Failure::new(Code::ApprovalPending, format_args!("muster pending approve {key}")))
        }
        Reply::Refused(code) => {
            Err(Failure::new(code, format_args!("{gateway} refused to admit this machine")))
        }
        Reply::Challenge(_)
        | Reply::Records(_)
        | Reply::End { .. }
        | Reply::Share(_)
        | Reply::Submitted(_) => Err(unexpected("another answer than to an admission")),
    }
}

/// Fetches everything the org's members hold.
pub(crate) async fn fetch(
    gateway: &Address,
    pinned: &Pinned,
    chain: &mut CharterChain,
    boot: &Boot,
) -> Outcome<Fetched> {
    let (mut session, _) = dial(gateway, pinned, chain, boot, &boot.key, "boot").await?;
    send(&mut session, &Request::Boot { charter: chain.head().id(), floor: boot.floor() }).await?;
    let mut fetched = Fetched::default();
    loop {
        match receive(&mut session).await? {
            Reply::Records(records) => fetched.take(records)?,
            Reply::End { count, .. } => {
                fetched.count = count;
                session.close().await;
                return Ok(fetched);
            }
            Reply::Refused(code) => return Err(Failure::new(code, format_args!("{gateway} refused"))),
            Reply::Admitted(_) | Reply::Challenge(_) | Reply::Share(_) | Reply::Submitted(_) => {
                return Err(unexpected("another answer than to a start"));
            }
        }
    }
}

/// Asks one gateway for this machine's part of the key of its disk, on the word of its TPM.
pub(crate) async fn share(
    gateway: &Address,
    pinned: &Pinned,
    chain: &mut CharterChain,
    boot: &Boot,
    speaker: &Speaker<'_>,
    epoch: u32,
) -> Outcome<DiskShare> {
    let offer = ShareOffer { epoch, certificate: speaker.certificate().to_vec(), key: speaker.key()? };
    let (mut session, id) = dial(gateway, pinned, chain, boot, &boot.key, "boot").await?;
    send(&mut session, &Request::Share(Box::new(offer))).await?;
    let mut reply = receive(&mut session).await?;
    if let Reply::Challenge(challenge) = &reply {
        let ours = boot.key.public();
        let quote = speaker.answer(challenge, |opened| share_question(&id, &ours, epoch, opened))?;
        send(&mut session, &Request::Quote(Box::new(quote))).await?;
        reply = receive(&mut session).await?;
    }
    match reply {
        Reply::Share(share) => {
            session.close().await;
            Ok(share)
        }
        Reply::Refused(code) => Err(Failure::new(code, format_args!("{gateway} gives no share"))),
        Reply::Admitted(_)
        | Reply::Challenge(_)
        | Reply::Records(_)
        | Reply::End { .. }
        | Reply::Submitted(_) => Err(unexpected("another answer than to a question for a share")),
    }
}

/// A session that fetches a node image, one question after the other.
#[derive(Debug)]
pub(crate) struct Images(Box<GatewaySession>);

impl Images {
    /// Proves the boot key to one gateway for it.
    pub(crate) async fn open(
        gateway: &Address,
        pinned: &Pinned,
        chain: &mut CharterChain,
        boot: &Boot,
    ) -> Outcome<Self> {
        let (session, _) = dial(gateway, pinned, chain, boot, &boot.key, BlobRequest::ACTION).await?;
        Ok(Self(Box::new(session)))
    }

    /// The signed release that machines are to run, if the gateway knows of one.
    pub(crate) async fn wanted(&mut self) -> Outcome<Option<Vec<u8>>> {
        self.ask(BlobRequest::Wanted).await?;
        match self.answer().await? {
            BlobReply::Wanted(release) => Ok(Some(release)),
            BlobReply::Refused(Code::NodeImageNotHeld) => Ok(None),
            reply @ (BlobReply::Nodes(_)
            | BlobReply::Piece(_)
            | BlobReply::Removed
            | BlobReply::Refused(_)) => Err(other_blob(&reply)),
        }
    }

    /// The outline of an image. It is checked against the hash before a piece is asked for.
    pub(crate) async fn outline(&mut self, image: BlobHash, bytes: u64) -> Outcome<Outline> {
        let pieces = bytes.div_ceil(BLOB_PIECE_BYTES as u64);
        let mut nodes = Vec::new();
        for first in (0..u32::try_from(pieces).unwrap_or(u32::MAX)).step_by(BLOB_NODES_MAX as usize) {
            self.ask(BlobRequest::Nodes { file: image, first }).await?;
            let reply = self.answer().await?;
            let BlobReply::Nodes(some) = reply else { return Err(other_blob(&reply)) };
            nodes.extend(some);
        }
        Outline::read(image, bytes, &nodes).map_err(|why| Failure::new(Code::NodeImageDamaged, why))
    }

    /// Every piece from `first` on, each checked before it is given to `take`.
    pub(crate) async fn pieces(
        &mut self,
        outline: &Outline,
        first: u32,
        mut take: impl FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut next = first;
        while next < outline.pieces() {
            let count = (outline.pieces() - next).min(BLOB_PIECES_MAX.into());
            let count = u8::try_from(count).unwrap_or(BLOB_PIECES_MAX);
            self.ask(BlobRequest::Pieces { file: outline.hash(), first: next, count }).await?;
            for index in next..next + u32::from(count) {
                let reply = self.answer().await?;
                let BlobReply::Piece(piece) = reply else { return Err(other_blob(&reply)) };
                outline.check(index, &piece).map_err(|why| {
                    Failure::new(Code::NodeImageDamaged, format_args!("piece {index}: {why}"))
                })?;
                take(&piece)?;
            }
            next += u32::from(count);
        }
        Ok(())
    }

    pub(crate) async fn close(self) {
        self.0.close().await;
    }

    async fn ask(&mut self, request: BlobRequest) -> Outcome<()> {
        self.0.send(request.encode()).await.map_err(|why| Failure::new(why.code(), why))
    }

    async fn answer(&mut self) -> Outcome<BlobReply> {
        let frame = receive_frame(&mut self.0).await?;
        BlobReply::decode(&frame).map_err(|why| Failure::new(Code::FrameMalformed, why))
    }
}

fn other_blob(reply: &BlobReply) -> Failure {
    match reply {
        BlobReply::Refused(code) => Failure::new(*code, "the gateway refused"),
        BlobReply::Wanted(_) | BlobReply::Nodes(_) | BlobReply::Piece(_) | BlobReply::Removed => {
            unexpected("another answer than was asked for")
        }
    }
}

impl Fetched {
    fn take(&mut self, records: Vec<Record>) -> Outcome<()> {
        self.records.extend(Records::batches(records, usize::MAX).flatten());
        if self.records.len() > BOOT_RECORDS_BYTES_MAX {
            Err(unexpected("more than an org can hold"))
        } else {
            Ok(())
        }
    }
}

async fn dial(
    gateway: &Address,
    pinned: &Pinned,
    chain: &mut CharterChain,
    boot: &Boot,
    key: &SecretKey,
    action: &str,
) -> Outcome<(GatewaySession, SessionId)> {
    // What the newest settings known here retire is no anchor any more, whatever the bundle says.
    let accepted = TrustBundle::accepted(Some(&pinned.bundle), chain.head().charter())
        .map_err(|why| Failure::new(why.code(), why))?;
    let tls = ClientTls::trusting(&accepted).map_err(|why| Failure::new(why.code(), why))?;
    let action = Action::new(action, &[]).map_err(|why| Failure::new(Code::ActionUnknown, why))?;
    let anchor = Some(boot.anchor());
    let (heads, count) = (Heads([0; 32]), 0);
    let dial = GatewayDial { address: gateway, tls: &tls, anchor, key, action, heads, count };
    let (session, accepted) = dial_gateway(dial, chain).await?;
    Ok((session, accepted.session()))
}

async fn send(session: &mut GatewaySession, request: &Request) -> Outcome<()> {
    session.send(request.encode()).await.map_err(|why| Failure::new(why.code(), why))
}

async fn receive_frame(session: &mut GatewaySession) -> Outcome<Vec<u8>> {
    let frame = timeout(Duration::from_millis(DIAL_DEADLINE_MS), session.recv()).await;
    let frame = frame.map_err(|_| Failure::new(Code::HandshakeTimeout, "the gateway stopped answering"))?;
    frame.map_err(|why| Failure::new(why.code(), why))
}

async fn receive(session: &mut GatewaySession) -> Outcome<Reply> {
    let frame = receive_frame(session).await?;
    Reply::decode(&frame).map_err(|why| Failure::new(Code::FrameMalformed, why))
}

fn unexpected(what: &str) -> Failure {
    Failure::new(Code::FrameMalformed, format_args!("the gateway sent {what}"))
}
