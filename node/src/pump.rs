//! A program's bytes in a session: from the program that a member uses to the one that serves it.
//!
//! Each way ends by itself: an empty frame says that its sender has sent everything, and the other way goes
//! on. Whoever reads slowly slows the one who sends, for as long as it takes, and nothing is kept beyond one
//! frame each way. A session that is cut stops at once: the program first, then the peer is told why.

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use control::{
    framing,
    local::{Answer, Connected, Failed, LocalAddress},
    stream::{self, Next},
};
use identity::{
    Code,
    limits::{CLOSE_FLUSH_MS, CONTROL_MESSAGE_BYTES_MAX, SERVICE_CONNECT_MS, SERVICE_FRAME_BYTES_MAX},
};
use muster_peer::Header;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UnixStream},
    sync::oneshot,
    time::timeout,
};
use transport::{Session, SessionError, SessionReceiver, SessionSender};

use crate::{
    link::{Ground, tell},
    run::Input,
    sessions::{Cut, Ends, SessionKey},
    state::Program,
};

/// Connects the program that serves a session, and carries the bytes between the two.
pub(crate) async fn serve(
    ground: &Ground,
    session: Session<TcpStream>,
    key: SessionKey,
    ends: Ends,
    serve: Program,
) {
    let Ends { mut cut, .. } = ends;
    let header = serve.peer.and_then(|peer| {
        let (source, destination) =
            (session.get_ref().peer_addr().ok()?, session.get_ref().local_addr().ok()?);
        Some(Header { source, destination, peer: Some(peer) }.encode())
    });
    let opening = timeout(Duration::from_millis(SERVICE_CONNECT_MS), open(ground, key, &serve.to, header));
    let opened = tokio::select! {
        biased;
        cut = &mut cut => Err(cut.ok()),
        opened = opening => opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            // Where it listens is this machine's business.
            tracing::warn!(MUSTER_CODE = %Code::ServiceDown, to = %serve.to, %error, "no program answers");
            Some(Cut { code: Code::ServiceDown, reason: "it does not answer".to_owned() })
        }),
    };
    let (sender, receiver) = session.split();
    let over = match opened {
        Ok((reader, writer)) => carry((sender, receiver), (reader, writer), Form::Raw, cut).await,
        Err(why) => Over { end: End::Cut(why), sender, receiver },
    };
    let _: Option<Failed> = finish(ground, key, over).await;
}

/// Carries the bytes of a program that wanted a member's service, once it was told that the session is open.
pub(crate) async fn connect(
    ground: &Ground,
    session: Session<TcpStream>,
    key: SessionKey,
    ends: Ends,
    (connected, reply, handed): (Connected, oneshot::Sender<Answer>, oneshot::Receiver<UnixStream>),
) {
    let Ends { cut, .. } = ends;
    let stream = match reply.send(Answer::Connected(connected)) {
        Ok(()) => handed.await.ok(),
        Err(_) => None,
    };
    let (sender, receiver) = session.split();
    let Some(stream) = stream else {
        // It did not wait.
        let _: Option<Failed> = finish(ground, key, Over { end: End::Done, sender, receiver }).await;
        return;
    };
    let (reader, mut writer) = stream.into_split();
    let over = carry((sender, receiver), (reader, &mut writer), Form::Pieces, cut).await;
    if let Some(failed) = finish(ground, key, over).await
        && let Ok(answer) = framing::encode(&Answer::Failed(failed), CONTROL_MESSAGE_BYTES_MAX)
    {
        let last = [&stream::OVER[..], &answer].concat();
        // It may be gone, or not read any more.
        drop(timeout(Duration::from_millis(CLOSE_FLUSH_MS), writer.write_all(&last)).await);
    }
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

async fn open(
    ground: &Ground,
    key: SessionKey,
    to: &LocalAddress,
    header: Option<Vec<u8>>,
) -> io::Result<(Reader, Writer)> {
    let (reader, mut writer): (Reader, Writer) = match to {
        LocalAddress::Tcp(address) => {
            let (socket, own): (_, IpAddr) = match address.ip() {
                IpAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::LOCALHOST.into()),
            };
            socket.bind(SocketAddr::new(own, 0))?;
            // Before the program can see the connection, so that it may ask at once whose it is.
            let _: Option<()> = tell(ground, Input::Seen(key, socket.local_addr()?)).await;
            let stream = socket.connect(*address).await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            (Box::new(reader), Box::new(writer))
        }
        LocalAddress::Unix(path) => {
            let (reader, writer) = UnixStream::connect(path).await?.into_split();
            (Box::new(reader), Box::new(writer))
        }
    };
    if let Some(header) = header {
        writer.write_all(&header).await?;
    }
    Ok((reader, writer))
}

/// How the program's side writes its stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is; it ends with the connection's half.
    Raw,
    /// In the pieces of [`control::stream`].
    Pieces,
}

/// Why it is over.
enum End {
    /// Both ways have ended, or the program is gone.
    Done,
    /// The state says so; or the program does not serve.
    Cut(Option<Cut>),
    /// The peer, or the connection to it.
    Peer(SessionError),
}

struct Over {
    end: End,
    sender: SessionSender<TcpStream>,
    receiver: SessionReceiver<TcpStream>,
}

async fn carry<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    (mut sender, mut receiver): (SessionSender<TcpStream>, SessionReceiver<TcpStream>),
    (mut reader, mut writer): (R, W),
    form: Form,
    mut cut: oneshot::Receiver<Cut>,
) -> Over {
    // The peer has sent everything, or nobody takes it any more; and the same of the program.
    let (heard_all, said_all, deaf) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let end = {
        let mut up = pin!(async {
            loop {
                let piece = match read(&mut reader, form).await {
                    Ok(piece) => piece,
                    // It has heard enough and is gone; what it said has been sent.
                    Err(_) if deaf.load(Ordering::Relaxed) => Vec::new(),
                    Err(error) => return Err(Up::Program(error)),
                };
                let is_end = piece.is_empty();
                sender.send_patiently(piece).await.map_err(Up::Peer)?;
                if is_end {
                    return Ok(());
                }
            }
        });
        let mut down = pin!(async {
            loop {
                let piece = receiver.recv().await?;
                if heard_all.load(Ordering::Relaxed) {
                    return Err(SessionError::Unexpected);
                }
                let is_end = piece.is_empty();
                if !deaf.load(Ordering::Relaxed) && write(&mut writer, form, &piece).await.is_err() {
                    deaf.store(true, Ordering::Relaxed);
                }
                heard_all.store(is_end, Ordering::Relaxed);
                let nothing_more = is_end || deaf.load(Ordering::Relaxed);
                if nothing_more && said_all.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        });
        loop {
            tokio::select! {
                biased;
                cut = &mut cut => break End::Cut(cut.ok()),
                heard = &mut down => break heard.map_or_else(End::Peer, |()| End::Done),
                said = &mut up, if !said_all.load(Ordering::Relaxed) => match said {
                    Ok(()) => {
                        said_all.store(true, Ordering::Relaxed);
                        if heard_all.load(Ordering::Relaxed) || deaf.load(Ordering::Relaxed) {
                            break End::Done;
                        }
                    }
                    Err(Up::Program(error)) => {
                        tracing::debug!(%error, "the program broke its connection");
                        break match form {
                            Form::Raw => {
                                let reason = "it broke the connection".to_owned();
                                End::Cut(Some(Cut { code: Code::ServiceDown, reason }))
                            }
                            Form::Pieces => End::Done,
                        };
                    }
                    // It may have said why before it closed.
                    Err(Up::Peer(why)) => {
                        let said = timeout(Duration::from_millis(CLOSE_FLUSH_MS), &mut down).await;
                        break End::Peer(said.ok().and_then(Result::err).unwrap_or(why));
                    }
                },
            }
        }
    };
    Over { end, sender, receiver }
}

enum Up {
    Peer(SessionError),
    Program(io::Error),
}

/// What there is, up to a frame; nothing at the end. Room is made only when something has come.
async fn read(reader: &mut (impl AsyncRead + Unpin), form: Form) -> io::Result<Vec<u8>> {
    match form {
        Form::Raw => {
            poll_fn(|cx| {
                let mut piece = Vec::with_capacity(SERVICE_FRAME_BYTES_MAX);
                let polled = {
                    let mut limited = (&mut *reader).take(SERVICE_FRAME_BYTES_MAX as u64);
                    pin!(limited.read_buf(&mut piece)).poll(cx)
                };
                polled.map_ok(|_| piece)
            })
            .await
        }
        Form::Pieces => {
            let mut head = [0; 4];
            reader.read_exact(&mut head).await?;
            let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
            match stream::next(head).map_err(invalid)? {
                Next::End => Ok(Vec::new()),
                // Only this side says so.
                Next::Over => Err(io::ErrorKind::InvalidData.into()),
                Next::Bytes(length) => {
                    let mut piece = vec![0; length];
                    reader.read_exact(&mut piece).await?;
                    Ok(piece)
                }
            }
        }
    }
}

/// A piece, or the end.
async fn write(writer: &mut (impl AsyncWrite + Unpin), form: Form, piece: &[u8]) -> io::Result<()> {
    match form {
        Form::Raw if piece.is_empty() => writer.shutdown().await,
        Form::Raw => writer.write_all(piece).await,
        Form::Pieces => {
            writer.write_all(&stream::head(piece)).await?;
            writer.write_all(piece).await
        }
    }
}

/// Tells the peer, and the state; and says why, unless both ways have ended by themselves.
async fn finish(ground: &Ground, key: SessionKey, over: Over) -> Option<Failed> {
    let Over { end, sender, mut receiver } = over;
    let failed = match end {
        End::Done => {
            sender.close().await;
            None
        }
        End::Cut(cut) => {
            let Cut { code, reason } = cut.unwrap_or_else(|| {
                let code = Code::ShuttingDown;
                Cut { code, reason: code.title().to_owned() }
            });
            sender.cut(code, &reason).await;
            let heard = async { while receiver.recv().await.is_ok() {} };
            drop(timeout(Duration::from_millis(CLOSE_FLUSH_MS), heard).await);
            Some(Failed { code: code.into(), detail: reason })
        }
        End::Peer(why) => {
            tracing::debug!(MUSTER_CODE = %why.code(), "a service's session ended: {why}");
            if let SessionError::Closed { code: Some(code), .. } = &why {
                let _: Option<()> = tell(ground, Input::Told(key, *code)).await;
            }
            let code = why.code().into();
            let words = why.to_string();
            let said =
                if let SessionError::Closed { code: Some(_), reason, .. } = why { reason } else { words };
            Some(Failed { code, detail: said })
        }
    };
    let _: Option<()> = tell(ground, Input::Ended(key)).await;
    failed
}
