//! What is asked of a gateway: admission once, and at each start what a member needs.

use std::time::Duration;

use conn_auth::Action;
use identity::{
    Code, Heads, SecretKey, SessionId,
    limits::{BOOT_RECORDS_BYTES_MAX, DIAL_DEADLINE_MS},
};
use org_trust::{CharterChain, EnrolRequest, Record, Records, Reply, Request, Statement, TrustBundle};
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
            let quote = speaker.answer(request, &id, &challenge)?;
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
        Reply::Challenge(_) | Reply::Records(_) | Reply::End { .. } | Reply::Submitted(_) => {
            Err(unexpected("another answer than to an admission"))
        }
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
            Reply::Admitted(_) | Reply::Challenge(_) | Reply::Submitted(_) => {
                return Err(unexpected("another answer than to a start"));
            }
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
    let tls = ClientTls::new(accepted.certificates().iter().map(|anchor| anchor.der()))
        .map_err(|why| Failure::new(why.code(), why))?;
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

async fn receive(session: &mut GatewaySession) -> Outcome<Reply> {
    let frame = timeout(Duration::from_millis(DIAL_DEADLINE_MS), session.recv()).await;
    let frame = frame.map_err(|_| Failure::new(Code::HandshakeTimeout, "the gateway stopped answering"))?;
    let frame = frame.map_err(|why| Failure::new(why.code(), why))?;
    Reply::decode(&frame).map_err(|why| Failure::new(Code::FrameMalformed, why))
}

fn unexpected(what: &str) -> Failure {
    Failure::new(Code::FrameMalformed, format_args!("the gateway sent {what}"))
}
