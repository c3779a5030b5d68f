//! A session of `blob-put`, at the keeper: frames in, the disk asked on a thread of its own, frames out.
//!
//! Being cut goes before everything: from then on nothing is taken and nothing said but why.

use std::{sync::Arc, time::Duration};

use identity::{
    Code, Outline, PublicKey,
    limits::{BLOB_QUIET_MS, CLOSE_FLUSH_MS},
};
use org_trust::{PutReply, PutStep, Putting};
use tokio::{net::TcpStream, time::timeout};
use transport::Session;

use super::{Begun, Blobs, BlobsError, Taking};
use crate::{
    link::{Ground, end, ended},
    sessions::{Cut, Ends, SessionKey},
};

/// Takes one file.
pub(crate) async fn serve(
    ground: &Ground,
    mut session: Session<TcpStream>,
    key: SessionKey,
    ends: Ends,
    (blobs, by): (Arc<Blobs>, PublicKey),
) {
    let Ends { mut cut, .. } = ends;
    let mut keeper = Keeper { blobs, by, putting: Putting::default(), taking: None };
    loop {
        let frame = tokio::select! {
            biased;
            cut = &mut cut => return end(ground, session, key, cut.ok()).await,
            frame = timeout(Duration::from_millis(BLOB_QUIET_MS), session.recv()) => match frame {
                Ok(Ok(frame)) => frame,
                Ok(Err(why)) => return ended(ground, key, &why).await,
                Err(_) => {
                    let reason = "nothing more came in time".to_owned();
                    let cut = Cut { code: Code::TransferSilent, reason };
                    return end(ground, session, key, Some(cut)).await;
                }
            },
        };
        // The other side has nothing more to say.
        if frame.is_empty() {
            return end(ground, session, key, None).await;
        }
        let stepped = tokio::task::spawn_blocking(move || {
            let reply = keeper.on_frame(&frame);
            (keeper, reply)
        });
        let Ok((back, reply)) = stepped.await else { return end(ground, session, key, None).await };
        keeper = back;
        let Some(reply) = reply else { continue };
        // What the disk did is done; a session that lost its standing meanwhile is not told so.
        let sent = tokio::select! {
            biased;
            cut = &mut cut => return end(ground, session, key, cut.ok()).await,
            sent = timeout(Duration::from_millis(BLOB_QUIET_MS), session.send(reply.encode())) => sent,
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return ended(ground, key, &why).await,
            Err(_) => return end(ground, session, key, None).await,
        }
        if matches!(reply, PutReply::Kept | PutReply::Refused(_)) {
            // What is on its way is read, so that the answer is not lost with the connection.
            let heard = async { while session.recv().await.is_ok_and(|frame| !frame.is_empty()) {} };
            drop(timeout(Duration::from_millis(CLOSE_FLUSH_MS), heard).await);
            return end(ground, session, key, None).await;
        }
    }
}

/// One put, and its disk.
pub(super) struct Keeper {
    pub(super) blobs: Arc<Blobs>,
    pub(super) by: PublicKey,
    pub(super) putting: Putting,
    pub(super) taking: Option<(Box<Taking>, Option<Outline>)>,
}

impl Keeper {
    pub(super) fn on_frame(&mut self, frame: &[u8]) -> Option<PutReply> {
        let step = match self.putting.on_frame(frame) {
            Ok(step) => step,
            Err(code) => return Some(PutReply::Refused(code)),
        };
        self.step(step).unwrap_or_else(|why| {
            tracing::info!(MUSTER_CODE = %why.code, MUSTER_PEER = self.by.short(), "a file is not kept: {}", why.detail);
            Some(PutReply::Refused(why.code))
        })
    }

    fn step(&mut self, step: PutStep) -> Result<Option<PutReply>, BlobsError> {
        Ok(match step {
            PutStep::Begin { file, bytes } => match self.blobs.begin(file, bytes, self.by)? {
                Begun::Kept => Some(PutReply::Kept),
                Begun::Taking(taking) => {
                    self.taking = Some((taking, None));
                    Some(PutReply::Nodes)
                }
            },
            PutStep::Wait => None,
            PutStep::Resume(outline) => {
                let Some((taking, known)) = &mut self.taking else { return Ok(Some(OUT_OF_TURN)) };
                let pieces = taking.resume(&outline)?;
                *known = Some(outline);
                if self.putting.resumed(pieces) { self.keep()? } else { Some(PutReply::From(pieces)) }
            }
            PutStep::Write { index, piece, is_last } => {
                let Some((taking, _)) = &self.taking else { return Ok(Some(OUT_OF_TURN)) };
                taking.write(index, &piece)?;
                if is_last { self.keep()? } else { None }
            }
        })
    }

    fn keep(&mut self) -> Result<Option<PutReply>, BlobsError> {
        let Some((taking, Some(outline))) = self.taking.take() else { return Ok(Some(OUT_OF_TURN)) };
        taking.finish(&outline)?;
        tracing::info!(MUSTER_PEER = self.by.short(), file = %outline.hash(), bytes = outline.bytes(), "a file is kept");
        Ok(Some(PutReply::Kept))
    }
}

const OUT_OF_TURN: PutReply = PutReply::Refused(Code::RequestMalformed);
