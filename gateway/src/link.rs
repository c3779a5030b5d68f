//! The one connection to musterd: who asked what, and what happens when musterd goes away.
//!
//! One task owns the table of conversations. It forgets all of them when the socket breaks, which ends
//! their connections, and dials again; until then every question is answered "away" at once.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use control::{
    framing,
    gateway::{ConnectionId, FromGateway, ToGateway},
};
use identity::limits::{BOOT_RECORDS_BYTES_MAX, GATEWAY_MESSAGE_BYTES_MAX, SYNC_FRAME_BYTES_MAX};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

/// What a connection asks of the link.
#[derive(Debug)]
pub(crate) enum Command {
    /// From now on answers for `id` go to `inbox`. Dropped at once while musterd is away.
    Open { id: ConnectionId, inbox: mpsc::Sender<ToGateway> },
    /// To musterd.
    Send(FromGateway),
    /// The connection is gone.
    Gone { id: ConnectionId },
}

/// A connection's end of the link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
}

/// Musterd is away, or ended the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away;

impl Link {
    /// The handle, and the queue that [`run`] serves.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(COMMANDS_QUEUED_MAX);
        (Self { commands }, queue)
    }

    /// Opens a conversation.
    pub(crate) async fn open(&self, id: ConnectionId) -> Result<mpsc::Receiver<ToGateway>, Away> {
        let (inbox, receiver) = mpsc::channel(INBOX_QUEUED_MAX);
        self.commands.send(Command::Open { id, inbox }).await.map_err(|_| Away)?;
        Ok(receiver)
    }

    /// Says something in a conversation.
    pub(crate) async fn send(&self, message: FromGateway) -> Result<(), Away> {
        self.commands.send(Command::Send(message)).await.map_err(|_| Away)
    }

    /// Ends a conversation, whether or not it was opened.
    pub(crate) async fn gone(&self, id: ConnectionId) {
        if self.commands.send(Command::Gone { id }).await.is_err() {
            tracing::debug!(id, "the link to musterd has ended before this connection");
        }
    }
}

/// Serves the queue until all handles are dropped.
pub(crate) async fn run(socket: PathBuf, mut queue: mpsc::Receiver<Command>) {
    let mut said_away = false;
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                tracing::info!(socket = %socket.display(), "connected to musterd");
                said_away = false;
                match converse(stream, &mut queue).await {
                    Ended::Handles => return,
                    Ended::Musterd => tracing::warn!("musterd went away"),
                }
            }
            Err(error) => {
                if !said_away {
                    tracing::warn!(socket = %socket.display(), %error, "musterd is away");
                }
                said_away = true;
            }
        }
        // Answer "away" to whoever asks meanwhile: dropping an inbox says it.
        let pause = sleep(RECONNECT);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                command = queue.recv() => match command {
                    None => return,
                    Some(Command::Open { .. } | Command::Send(_) | Command::Gone { .. }) => {}
                },
            }
        }
    }
}

enum Ended {
    Handles,
    Musterd,
}

/// A conversation in the table.
struct Talk {
    inbox: mpsc::Sender<ToGateway>,
    /// Whether musterd was told of it by `Begin`, so that it must hear of its end.
    begun: bool,
}

async fn converse(stream: UnixStream, queue: &mut mpsc::Receiver<Command>) -> Ended {
    let (read_half, write_half) = stream.into_split();
    let (outward, to_write) = mpsc::channel(SOCKET_QUEUED_MAX);
    let (from_read, mut inward) = mpsc::channel(SOCKET_QUEUED_MAX);
    // Two tasks move bytes, so that a full socket in one direction never stops the other; dropping
    // the set ends both.
    let mut movers = JoinSet::new();
    movers.spawn(read(read_half, from_read));
    movers.spawn(write(write_half, to_write));
    let mut talks: BTreeMap<ConnectionId, Talk> = BTreeMap::new();
    loop {
        let message = tokio::select! {
            _ = movers.join_next() => return Ended::Musterd,
            message = inward.recv() => match message {
                None => return Ended::Musterd,
                Some(message) => deliver(&mut talks, message),
            },
            command = queue.recv() => match command {
                None => return Ended::Handles,
                Some(command) => obey(&mut talks, command),
            },
        };
        let Some(message) = message else { continue };
        match timeout(STUCK, outward.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ended::Musterd,
            Err(_) => {
                tracing::warn!("musterd does not read");
                return Ended::Musterd;
            }
        }
    }
}

/// Hands a message to its connection. What comes back is for musterd.
fn deliver(talks: &mut BTreeMap<ConnectionId, Talk>, message: ToGateway) -> Option<FromGateway> {
    let id = message.id();
    let last = matches!(message, ToGateway::Cut { .. } | ToGateway::Verdict { session: None, .. });
    let talk = talks.get(&id)?;
    if talk.inbox.try_send(message).is_err() {
        // It reads slower than musterd speaks, or is gone already: musterd hears of the end.
        let begun = talks.remove(&id).is_some_and(|talk| talk.begun);
        return (begun && !last).then_some(FromGateway::Close { id });
    }
    if last {
        talks.remove(&id);
    }
    None
}

/// Does what a connection asks. What comes back is for musterd.
fn obey(talks: &mut BTreeMap<ConnectionId, Talk>, command: Command) -> Option<FromGateway> {
    match command {
        Command::Open { id, inbox } => {
            talks.insert(id, Talk { inbox, begun: false });
            None
        }
        Command::Send(message) => {
            // A conversation that has ended on this side says nothing more.
            let talk = talks.get_mut(&message.id())?;
            talk.begun |= matches!(message, FromGateway::Begin { .. });
            Some(message)
        }
        Command::Gone { id } => {
            let talk = talks.remove(&id)?;
            talk.begun.then_some(FromGateway::Close { id })
        }
    }
}

async fn read(mut half: OwnedReadHalf, messages: mpsc::Sender<ToGateway>) {
    loop {
        match read_one(&mut half).await {
            Ok(message) => {
                if messages.send(message).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    tracing::warn!(%error, "musterd's message cannot be read");
                }
                return;
            }
        }
    }
}

async fn read_one(half: &mut OwnedReadHalf) -> io::Result<ToGateway> {
    let mut prefix = [0; 4];
    half.read_exact(&mut prefix).await?;
    let length = framing::body_length(prefix, GATEWAY_MESSAGE_BYTES_MAX).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    half.read_exact(&mut body).await?;
    framing::decode(&body).map_err(io::Error::other)
}

async fn write(mut half: OwnedWriteHalf, mut messages: mpsc::Receiver<FromGateway>) {
    while let Some(message) = messages.recv().await {
        let bytes = match framing::encode(&message, GATEWAY_MESSAGE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                // The bounds of sessions are below this one, so this is a fault of ours.
                tracing::error!(%error, "a message to musterd cannot be written");
                return;
            }
        };
        match timeout(STUCK, half.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Questions of connections that wait for the task.
const COMMANDS_QUEUED_MAX: usize = 64;
/// Messages that wait for one connection. musterd answers a start with everything it holds at once, so
/// the longest answer must fit; whoever is given one has proved a key, and loses it unless it reads.
const INBOX_QUEUED_MAX: usize = BOOT_RECORDS_BYTES_MAX / SYNC_FRAME_BYTES_MAX;
/// Messages that wait for the socket, each way.
const SOCKET_QUEUED_MAX: usize = 64;
/// How long musterd may leave its socket unread.
const STUCK: Duration = Duration::from_secs(10);
/// Between two tries to reach musterd.
const RECONNECT: Duration = Duration::from_millis(500);
