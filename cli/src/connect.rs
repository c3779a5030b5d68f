//! `muster connect` and `muster ssh`: a member's program, as if it were on this machine.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
    thread,
};

use control::{
    framing,
    local::{Answer, Connected, LocalAddress, Request},
    stream::{self, Next},
};
use identity::{
    Code,
    limits::{CONTROL_MESSAGE_BYTES_MAX, SERVICE_FRAME_BYTES_MAX},
};

use crate::{
    args::{Connect, Everywhere, Ssh},
    failure::{Failure, Outcome},
    local::{Daemon, unexpected},
    output,
    place::Places,
};

/// `connect`.
pub(crate) fn run(everywhere: &Everywhere, args: &Connect) -> Outcome<()> {
    let socket = Places::find(everywhere)?.socket;
    match &args.listen {
        None => {
            let (stream, _) = open(&socket, &args.node, &args.action)?;
            carry(stream, io::stdin(), &mut Stdout)
        }
        Some(LocalAddress::Tcp(at)) => {
            let listener = TcpListener::bind(at).map_err(|error| not_heard(&at.to_string(), &error))?;
            let at = listener.local_addr().map_or_else(|_| at.to_string(), |at| at.to_string());
            output::talk(&format!("listening on {at}: every user of this machine may connect there"));
            serve(&socket, args, || {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Ok((stream.try_clone()?, stream))
            })
        }
        Some(at @ LocalAddress::Unix(path)) => {
            let listen = || {
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(listener)
            };
            let umask = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
            let listener = listen().map_err(|error: io::Error| not_heard(&at.to_string(), &error));
            rustix::process::umask(umask);
            let listener = listener?;
            output::talk(&format!("listening on {at}"));
            serve(&socket, args, || {
                let (stream, _) = listener.accept()?;
                Ok((stream.try_clone()?, stream))
            })
        }
    }
}

/// `ssh`: whose check of the host's key stays ssh's own, under the member's name.
pub(crate) fn ssh(everywhere: &Everywhere, args: &Ssh) -> Outcome<u8> {
    let places = Places::find(everywhere)?;
    let (user, node) =
        args.node.split_once('@').map_or(("", args.node.as_str()), |(user, node)| (user, node));
    let mut daemon = Daemon::connect(&places.socket)?;
    let Answer::Members(found) = daemon.ask(&Request::Member { node: node.to_owned() })? else {
        return Err(unexpected());
    };
    let Answer::Status(status) = daemon.ask(&Request::Status {})? else { return Err(unexpected()) };
    let (Some(member), Some(org)) = (found.first(), &status.org) else { return Err(unexpected()) };
    let own = std::env::current_exe().map_err(|error| Failure::new(Code::FileProblem, error))?;
    let words = [own.as_os_str(), "--socket".as_ref(), places.socket.as_os_str()];
    let words = words.map(|word| quoted(&word.to_string_lossy())).join(" ");
    // The key, and not the name: it is this member or none.
    let proxy = format!("ProxyCommand={words} connect {} ssh", member.node);
    let alias = format!("HostKeyAlias={}.{}.internal", member.name, org.name);
    let mut ssh = Command::new("ssh");
    ssh.args(["-o", &proxy, "-o", &alias]);
    if !user.is_empty() {
        ssh.args(["-l", user]);
    }
    // Options of ssh's own stand before the host, a command behind it.
    let options = args.arguments.iter().position(|word| !is_option(word)).unwrap_or(args.arguments.len());
    let (options, command) = args.arguments.split_at(options);
    let failed = ssh.args(options).arg("--").arg(&member.name).args(command).exec();
    Err(Failure::new(Code::FileProblem, format_args!("ssh: {failed}"))
        .remedy("Install ssh: `apt-get install openssh-client`."))
}

/// Written in one word: `-oUser=ada`, `-v`.
fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// As one word of a shell, in which ssh replaces nothing.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

fn not_heard(at: &str, error: &io::Error) -> Failure {
    Failure::new(Code::FileProblem, format_args!("{at}: {error}"))
        .remedy("Give another address, or end the program that has this one.")
}

/// A session with a member's service, by this machine's musterd.
pub(crate) fn open(socket: &Path, node: &str, action: &str) -> Outcome<(UnixStream, Connected)> {
    let mut daemon = Daemon::connect(socket)?;
    let request = Request::Connect { node: node.to_owned(), action: action.to_owned() };
    let Answer::Connected(connected) = daemon.ask(&request)? else { return Err(unexpected()) };
    Ok((daemon.into_stream()?, connected))
}

/// Every connection is a session of its own; one that fails is told, and the next one may not.
fn serve<R, W>(socket: &Path, args: &Connect, mut accept: impl FnMut() -> io::Result<(R, W)>) -> Outcome<()>
where
    R: Read + Send + 'static,
    W: Near + Send + 'static,
{
    loop {
        let (reader, mut writer) =
            accept().map_err(|error| Failure::new(Code::FileProblem, format_args!("accept: {error}")))?;
        match open(socket, &args.node, &args.action) {
            Ok((stream, _)) => {
                thread::spawn(move || {
                    if let Err(failure) = carry(stream, reader, &mut writer) {
                        output::talk(failure.text().trim_end());
                    }
                    // Also what still waits for more of it.
                    writer.close();
                });
            }
            Err(failure) => output::talk(failure.text().trim_end()),
        }
    }
}

/// Where a member's bytes go.
pub(crate) trait Near: Write {
    /// There are no more of them.
    fn end(&mut self) -> io::Result<()>;
    /// Nor does anything go the other way.
    fn close(&self);
}

struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Near for Stdout {
    /// Whoever reads it sees the end, while what stdin brings still goes out.
    fn end(&mut self) -> io::Result<()> {
        Ok(rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?)
    }

    /// Stdin ends with the process.
    fn close(&self) {}
}

impl Near for TcpStream {
    fn end(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn close(&self) {
        // It may be gone already.
        self.shutdown(Shutdown::Both).unwrap_or_default();
    }
}

impl Near for UnixStream {
    fn end(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn close(&self) {
        // The same.
        self.shutdown(Shutdown::Both).unwrap_or_default();
    }
}

/// Until both ways have ended, or musterd says that the session is over.
pub(crate) fn carry(
    stream: UnixStream,
    reader: impl Read + Send + 'static,
    writer: &mut impl Near,
) -> Outcome<()> {
    let to_musterd = stream.try_clone().map_err(lost)?;
    // Ends with the process, or when musterd closes.
    thread::spawn(move || send(to_musterd, reader));
    let mut from_musterd = BufReader::with_capacity(SERVICE_FRAME_BYTES_MAX, stream);
    let mut ended = false;
    let mut piece = Vec::new();
    loop {
        let mut head = [0; 4];
        match from_musterd.read_exact(&mut head) {
            Err(_) if ended => return Ok(()),
            read => read.map_err(lost)?,
        }
        let malformed = |why: framing::FrameError| Failure::new(Code::RequestMalformed, why);
        match stream::next(head).map_err(malformed)? {
            Next::Bytes(length) => {
                piece.resize(length, 0);
                from_musterd.read_exact(&mut piece).map_err(lost)?;
                if writer.write_all(&piece).and_then(|()| writer.flush()).is_err() {
                    // Nobody reads it any more, which is no failure of ours.
                    return Ok(());
                }
            }
            Next::End => {
                ended = true;
                if writer.end().is_err() {
                    return Ok(());
                }
            }
            Next::Over => {
                let mut prefix = [0; 4];
                from_musterd.read_exact(&mut prefix).map_err(lost)?;
                let length = framing::body_length(prefix, CONTROL_MESSAGE_BYTES_MAX).map_err(malformed)?;
                let mut body = vec![0; length];
                from_musterd.read_exact(&mut body).map_err(lost)?;
                let Answer::Failed(failed) = framing::decode(&body).map_err(malformed)? else {
                    return Err(unexpected());
                };
                let code = failed.code.0;
                let seen = if failed.detail.is_empty() { code.cause() } else { &failed.detail };
                return Err(Failure::new(code, seen));
            }
        }
    }
}

fn send(mut to_musterd: UnixStream, mut reader: impl Read) {
    let mut bytes = vec![0; 4 + SERVICE_FRAME_BYTES_MAX];
    loop {
        let read = match bytes.get_mut(4..).map(|room| reader.read(room)) {
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
            Some(Ok(read)) => read,
            // A terminal that was hung up, or the like: there is no more.
            Some(Err(_)) | None => 0,
        };
        let (head, piece) = bytes.split_at_mut(4);
        head.copy_from_slice(&stream::head(piece.get(..read).unwrap_or_default()));
        let sent = bytes.get(..4 + read).map(|piece| to_musterd.write_all(piece));
        if read == 0 || !matches!(sent, Some(Ok(()))) {
            return;
        }
    }
}

fn lost(error: io::Error) -> Failure {
    Failure::new(Code::DaemonNotRunning, format_args!("the connection to musterd ended: {error}"))
        .remedy("Look at its log: `journalctl -u musterd`.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell_and_ssh_replaces_nothing_in_it() {
        assert_eq!(quoted("/opt/it's 100%h"), r"'/opt/it'\''s 100%%h'");
    }
}
