//! The local sockets: for programs of this machine's operator, and for the gateway's front. Both end
//! here at bytes; who may connect is the kernel's word.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use control::{
    framing,
    gateway::FromGateway,
    local::{Answer, Failed, LocalAddress, Request},
    text::Text,
};
use identity::{
    Code,
    limits::{CONTROL_CLIENTS_MAX, CONTROL_MESSAGE_BYTES_MAX, GATEWAY_MESSAGE_BYTES_MAX},
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    run::Input,
    state::{Outside, Socket},
};

/// A program's request.
#[derive(Debug)]
pub struct Asked {
    /// What it asks.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
    /// With [`Request::Connect`]: the connection, once it was answered.
    pub stream: Option<oneshot::Receiver<UnixStream>>,
}

/// Makes the socket, in place of one that nobody listens on any more. Its user and its group, the one
/// that its directory belongs to, may connect; nobody else from its first moment on.
///
/// # Errors
/// The operating system refuses, or somebody listens there.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Until owner and mode are set below, whatever the umask was.
    let umask = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let bound = UnixListener::bind(path);
    rustix::process::umask(umask);
    let listener = bound?;
    std::os::unix::fs::chown(path, None, Some(fs::metadata(directory)?.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves the control socket until nobody takes requests any more. The socket's mode says who may ask:
/// the credentials of a peer name its first group only, and an operator has this one among others.
pub async fn control(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = asked.closed() => return,
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            accepted = listener.accept(), if clients.len() < CONTROL_CLIENTS_MAX => match accepted {
                Ok((stream, _)) => {
                    let asked = asked.clone();
                    clients.spawn(async move {
                        if let Err(error) = client(stream, asked).await {
                            tracing::debug!(%error, "a control client");
                        }
                    });
                }
                Err(error) => pause(&error).await,
            },
        }
    }
}

async fn client(mut stream: UnixStream, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    loop {
        let mut connects = None;
        let read = timeout(CLIENT_IDLE, read_message(&mut stream, CONTROL_MESSAGE_BYTES_MAX)).await;
        let answer = match read {
            Err(_) | Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
            Ok(Err(error)) => failed(Code::RequestMalformed, error.to_string()),
            Ok(Ok(Some(request))) => {
                let (reply, answered) = oneshot::channel();
                let stream_for = matches!(request, Request::Connect { .. }).then(|| {
                    let (hand, handed) = oneshot::channel();
                    connects = Some(hand);
                    handed
                });
                let sent = match may_ask(&stream, &request) {
                    true => asked.send(Asked { request, reply, stream: stream_for }).await.is_ok(),
                    false => reply.send(failed(Code::NotPermitted, FOR_ROOT.to_owned())).is_ok(),
                };
                match answered.await {
                    Ok(answer) if sent => answer,
                    Ok(_) | Err(_) => failed(Code::ShuttingDown, String::new()),
                }
            }
        };
        let bytes = framing::encode(&answer, CONTROL_MESSAGE_BYTES_MAX)
            .or_else(|why| {
                framing::encode(&failed(Code::RequestMalformed, why.to_string()), CONTROL_MESSAGE_BYTES_MAX)
            })
            .map_err(io::Error::other)?;
        timeout(CLIENT_IDLE, stream.write_all(&bytes)).await??;
        if let (Some(hand), Answer::Connected(_)) = (connects.take(), answer) {
            // From here on it is the session's; whose task may have ended meanwhile.
            drop(hand.send(stream));
            return Ok(());
        }
    }
}

/// A socket in the file system may be one that only root opens, and musterd could: who offers it to others
/// must be able to open it himself.
fn may_ask(stream: &UnixStream, request: &Request) -> bool {
    let Request::Expose { to: Text(LocalAddress::Unix(_)), .. } = request else { return true };
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// Serves the gateway's socket until the state is gone.
pub async fn gateway(listener: UnixListener, group: u32, inputs: mpsc::Sender<Input>) {
    let mut fronts = JoinSet::new();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            () = inputs.closed() => return,
            Some(_) = fronts.join_next(), if !fronts.is_empty() => {}
            accepted = listener.accept(), if fronts.len() < FRONTS_MAX => match accepted {
                Ok((stream, _)) if is_permitted(&stream, group) => {
                    number += 1;
                    fronts.spawn(front(stream, number, inputs.clone()));
                }
                Ok(_) => tracing::warn!(MUSTER_CODE = %Code::NotPermitted, "a program at the gateway's socket"),
                Err(error) => pause(&error).await,
            },
        }
    }
}

async fn front(stream: UnixStream, number: u64, inputs: mpsc::Sender<Input>) {
    tracing::info!(number, "gateway connected");
    let (mut reader, mut writer) = stream.into_split();
    let (socket, mut outgoing, broken) = Socket::new(number, FRONT_QUEUED_MAX);
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            let bytes = framing::encode(&message, GATEWAY_MESSAGE_BYTES_MAX).map_err(io::Error::other)?;
            timeout(CLIENT_IDLE, write(&mut writer, &bytes)).await??;
            if outgoing.is_empty() && inputs.send(Input::Outside(Outside::Drained(number))).await.is_err() {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    let reading = async {
        while let Some(message) =
            read_message::<_, FromGateway>(&mut reader, GATEWAY_MESSAGE_BYTES_MAX).await?
        {
            if inputs.send(Input::Outside(Outside::Said(socket.clone(), message))).await.is_err() {
                break;
            }
        }
        Ok::<(), io::Error>(())
    };
    let ended = tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
        () = broken.notified() => Err(io::Error::other("it does not read what it is told")),
    };
    match ended {
        Ok(()) => tracing::info!(number, "gateway disconnected"),
        Err(error) => tracing::warn!(number, %error, "gateway disconnected"),
    }
    if inputs.send(Input::Outside(Outside::Gone(number))).await.is_err() {
        tracing::debug!("stopping");
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await
}

/// The next message; none at the end of the stream between two.
async fn read_message<S: AsyncRead + Unpin, T: DeserializeOwned>(
    stream: &mut S,
    max: usize,
) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut body = vec![0; framing::body_length(prefix, max).map_err(invalid)?];
    stream.read_exact(&mut body).await?;
    framing::decode(&body).map(Some).map_err(invalid)
}

/// Root, the daemon's own user, and the group that the socket's directory belongs to.
fn is_permitted(stream: &UnixStream, group: u32) -> bool {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    stream.peer_cred().is_ok_and(|peer| {
        peer.uid() == 0 || peer.uid() == own.0 || peer.gid() == own.1 || peer.gid() == group
    })
}

/// The group that a socket's directory belongs to.
///
/// # Errors
/// The directory cannot be looked at.
pub fn group_of(path: &Path) -> io::Result<u32> {
    fs::metadata(path.parent().ok_or(io::ErrorKind::InvalidInput)?).map(|directory| directory.gid())
}

fn failed(code: Code, detail: String) -> Answer {
    Answer::Failed(Failed { code: code.into(), detail })
}

/// Out of descriptors or the like: those that are connected go on.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

const FOR_ROOT: &str = "only root offers a socket of the file system; muster.toml can declare it";
/// A client may think this long between two requests, and take this long to read an answer.
const CLIENT_IDLE: Duration = Duration::from_secs(60);
/// A gateway's front, and its successor while it is replaced.
const FRONTS_MAX: usize = 4;
/// Messages to a gateway's front: several for each connection that is being made. Long answers are
/// paced and take a small part of it.
const FRONT_QUEUED_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_users_and_its_groups_and_the_umask_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/musterd.sock");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        fs::write(dir.path().join("before"), "").unwrap();
        let listener = listen(&path).unwrap();
        fs::write(dir.path().join("after"), "").unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(&dir.path().join("after")), mode(&dir.path().join("before")));
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse, "somebody listens");
        drop(listener);
        drop(listen(&path).unwrap());
    }
}
