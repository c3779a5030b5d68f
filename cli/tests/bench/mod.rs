//! A machine in a directory, with a musterd that is only as much of one as the commands ask for: a
//! replica behind the control socket.

pub(crate) mod gateway;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use control::{
    framing,
    local::{
        Answer, Coverage, Export, Failed, Invite, InviteStatus, LinkStatus, Member, MemberStatus, Missing,
        OrgStatus, Place, Request, Revoked, State, Status, Submitted, Taken,
    },
    text::{Bytes, Text},
};
use identity::{
    BootNonce, CharterId, Code, Name, PublicKey, SecretKey, encode_hex, limits::CONTROL_MESSAGE_BYTES_MAX,
};
use member_crdt::{Applied, FindError, InviteState, MemberState, Replica};
use org_trust::{
    Assurance, EnrolRequest, InviteManifest, Lane, NodeKeys, Payload, Record, Records, Redemption, Report,
    ReportBody, Statement, UnverifiedCharter,
};
use serde_json::Value;
use tpm_seal::{Custody, NodeSecrets};

pub(crate) const PASSPHRASE: &str = "correct horse battery";

pub(crate) struct Bench {
    directory: Arc<tempfile::TempDir>,
    passphrase: String,
}

pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// stdout as JSON; null when it is none.
    pub(crate) json: Value,
}

impl Ran {
    #[track_caller]
    pub(crate) fn succeeded(&self) {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
    }

    #[track_caller]
    pub(crate) fn failed_with(&self, code: &str, status: i32) {
        let first = format!("error: {code} ");
        assert!(self.stderr.lines().any(|line| line.starts_with(&first)), "{code}: {}", self.stderr);
        assert!(self.stderr.contains("  seen: ") && self.stderr.contains("  do:   "), "{}", self.stderr);
        assert_eq!(self.status, status, "{}", self.stderr);
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self { directory, passphrase: PASSPHRASE.to_owned() }
    }

    pub(crate) fn with_passphrase(&self, passphrase: &str) -> Self {
        Self { directory: Arc::clone(&self.directory), passphrase: passphrase.to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn org_create_args(&self) -> Vec<String> {
        self.org_create_args_at("gw.example:8443")
    }

    fn org_create_args_at(&self, address: &str) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        ["org", "create", "acme", "--gateway", address, "--node-name", "n1", "--key-storage", "file"]
            .map(str::to_owned)
            .into_iter()
            .chain([
                "--admin-dir".to_owned(),
                path("admin"),
                "--recovery-sheet".to_owned(),
                path("recovery.txt"),
            ])
            .collect()
    }

    pub(crate) fn create_org(&self) -> Ran {
        self.create_org_at("gw.example:8443")
    }

    pub(crate) fn create_org_at(&self, address: &str) -> Ran {
        let mut args = self.org_create_args_at(address);
        args.push("--json".to_owned());
        let created = self.run(&args);
        created.succeeded();
        created
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        ran.succeeded();
        assert_eq!(ran.json["schema_version"], 1, "{}", ran.stdout);
        ran.json
    }

    pub(crate) fn run<S: AsRef<str>>(&self, args: &[S]) -> Ran {
        self.run_with(args, "")
    }

    pub(crate) fn run_with<S: AsRef<str>>(&self, args: &[S], stdin: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(args.iter().map(AsRef::as_ref));
        command.env_clear().env("MUSTER_TEST_WORK_FACTOR", "2").env("MUSTER_PASSPHRASE", &self.passphrase);
        command.env("MUSTER_STATE_DIR", self.path("state")).env("MUSTER_CONFIG_DIR", self.path("etc"));
        command
            .env("MUSTER_CONTROL_SOCKET", self.path("musterd.sock"))
            .env("XDG_CONFIG_HOME", self.path("xdg"));
        if self.path("admin").exists() {
            // As if it were the only org below XDG_CONFIG_HOME.
            let link = self.path("xdg/muster/acme");
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            if !link.exists() {
                std::os::unix::fs::symlink(self.path("admin"), link).unwrap();
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap_or_default();
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        Ran {
            status: output.status.code().unwrap(),
            json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Lets a machine with keys made of `seed` join by an invite, as its gateway's musterd would.
    pub(crate) fn admit(&self, musterd: &Musterd, name: &str, seed: u8) -> PublicKey {
        let made = self.run(&["invite", "create"]);
        made.succeeded();
        self.admit_with(musterd, &made.stdout, name, seed)
    }

    /// The same by an invite that is there: whoever has it and the gateway's key can.
    pub(crate) fn admit_with(&self, musterd: &Musterd, invite: &str, name: &str, seed: u8) -> PublicKey {
        let invite = InviteManifest::parse(invite).unwrap().check().unwrap();
        let gateway = self.gateway_key();
        let key = |offset: u8| node_key(seed + offset);
        let (node, wireguard, boot) = (key(0), key(1), key(2));
        let keys = NodeKeys { node: &node, wireguard: &wireguard, boot: &boot };
        let redemption = Redemption { invite: invite.id(), key: invite.secret(), redeemer: gateway.public() };
        let (org, name) = (invite.org(), Name::parse(name).unwrap());
        let request = EnrolRequest::sign(&org, keys, redemption, name, Assurance::File, [0; 32]);
        let admit = request.verify(&org, &invite.invite().key).unwrap().into_admit();
        let mut replica = musterd.replica.lock().unwrap();
        let place = replica.next_place(&gateway.public(), Lane::Main).unwrap();
        let admit = Statement::sign(&org, &gateway, place, &Payload::from(admit)).unwrap();
        replica.apply(&Record::from(&admit)).unwrap();
        node.public()
    }

    pub(crate) fn gateway_key(&self) -> SecretKey {
        let secrets: NodeSecrets = Custody::File.load(&self.path("state/keys")).unwrap();
        secrets.gateway.unwrap().expose(SecretKey::from_seed)
    }

    /// A musterd that took the hand-over of `org create`.
    pub(crate) fn musterd(&self) -> Musterd {
        Musterd::start(&self.path("musterd.sock"), &self.path("state/handover"))
    }
}

/// The key of a machine made of `seed`.
pub(crate) fn node_key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// The stand-in for musterd; stops when dropped.
pub(crate) struct Musterd {
    socket: PathBuf,
    replica: Arc<Mutex<Replica>>,
    losing: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl Musterd {
    fn start(socket: &Path, handover: &Path) -> Self {
        let read = |name: &str| fs::read(handover.join(name)).unwrap();
        let charters = Records::decode_all(&read("charters")).unwrap();
        let [Record::Charter(genesis)] = charters.as_slice() else { panic!("{charters:?}") };
        let genesis = UnverifiedCharter::decode(genesis).unwrap().verify_genesis().unwrap();
        let mut replica = Replica::new(&genesis).unwrap();
        for record in Records::decode_all(&read("records")).unwrap() {
            replica.apply(&record).unwrap();
        }
        let replica = Arc::new(Mutex::new(replica));
        let (losing, stopping) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let listener = UnixListener::bind(socket).unwrap();
        let serving = {
            let (replica, losing, stopping) =
                (Arc::clone(&replica), Arc::clone(&losing), Arc::clone(&stopping));
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let (replica, losing) = (Arc::clone(&replica), Arc::clone(&losing));
                    thread::spawn(move || serve(stream, &replica, &losing));
                }
            })
        };
        Self { socket: socket.to_owned(), replica, losing, stopping, serving: Some(serving) }
    }

    /// The machine of this key reports that it has on disk all that is held here.
    pub(crate) fn report_of(&self, node: &SecretKey) {
        let mut replica = self.replica.lock().unwrap();
        let body = ReportBody {
            boot_nonce: BootNonce([1; 16]),
            seq: replica.report_of(&node.public()).map_or(0, |report| report.body().seq + 1),
            heads: replica.heads(),
            count: replica.count(),
            charter: replica.chain().head().id(),
            tips: replica.report_tips(),
            version: "0.1.0".to_owned(),
            endpoints: Vec::new(),
        };
        let report = Report::sign(&replica.org(), node, body).unwrap();
        replica.apply(&Record::from(&report)).unwrap();
    }

    /// The next change that is submitted is lost with its connection.
    pub(crate) fn lose_next_submit(&self) {
        self.losing.store(true, Ordering::SeqCst);
    }
}

impl Drop for Musterd {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.socket));
        if let Some(serving) = self.serving.take() {
            serving.join().unwrap();
        }
        fs::remove_file(&self.socket).unwrap();
    }
}

fn serve(mut stream: UnixStream, replica: &Mutex<Replica>, losing: &AtomicBool) {
    loop {
        let mut prefix = [0; 4];
        if stream.read_exact(&mut prefix).is_err() {
            return;
        }
        let mut body = vec![0; framing::body_length(prefix, CONTROL_MESSAGE_BYTES_MAX).unwrap()];
        stream.read_exact(&mut body).unwrap();
        let request = framing::decode(&body).unwrap();
        if matches!(request, Request::Submit { .. }) && losing.swap(false, Ordering::SeqCst) {
            return;
        }
        let answer = answer(&mut replica.lock().unwrap(), request)
            .unwrap_or_else(|code| Answer::Failed(Failed { code: Text(code), detail: String::new() }));
        let bytes = framing::encode(&answer, CONTROL_MESSAGE_BYTES_MAX).unwrap();
        stream.write_all(&bytes).unwrap_or_default();
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what no test asks is not answered")]
fn answer(replica: &mut Replica, request: Request) -> Result<Answer, Code> {
    let roster = replica.roster();
    let good = roster.good().count() as u64;
    Ok(match request {
        Request::Status {} => {
            let links = LinkStatus { linked: 0, sessions: 0, refused: 0, received: 0, sent: 0 };
            let former = roster.len() as u64 - good;
            let org = OrgStatus {
                id: Text(roster.org()),
                name: Text(Name::parse("acme").unwrap()),
                settings: replica.chain().head().charter().version,
                settings_id: Text(roster.anchor()),
                list: Text(replica.roster_digest()),
                heads: Text(replica.heads()),
                records: replica.records().count() as u64,
                members: good,
                former,
                forks: 0,
            };
            let version = "0.1.0".to_owned();
            let (state, node, problems) = (State::Ready, None, Vec::new());
            Answer::Status(Box::new(Status {
                version,
                state,
                problems,
                org: Some(org),
                node,
                gateway: true,
                up_ms: 1_000,
                links,
                freshness: None,
                neighbours: Vec::new(),
            }))
        }
        Request::Members {} => {
            Answer::Members(roster.members().into_iter().map(|m| member(m, &roster)).collect())
        }
        Request::Member { node } => match roster.find(&node) {
            Ok(found) => Answer::Members(vec![member(found, &roster)]),
            Err(FindError::Ambiguous { .. }) => return Err(Code::AmbiguousMember),
            Err(_) => return Err(Code::NoSuchMember),
        },
        Request::Invites {} => Answer::Invites(roster.invites().into_iter().map(invite).collect()),
        Request::Place { author, lane } => {
            let lane = Lane::from_number(lane).ok_or(Code::RequestMalformed)?;
            let place = replica.next_place(&author.0, lane).ok_or(Code::AdminKeyUnknown)?;
            Answer::Place(Place {
                org: Text(roster.org()),
                charter: Text(place.charter),
                seq: place.seq,
                prev: Bytes(place.prev.to_vec()),
            })
        }
        Request::Submit { records } => {
            let mut taken = Vec::new();
            for record in records.iter().flat_map(|bytes| Records::decode(&bytes.0).unwrap()) {
                let new = match replica.apply(&record).map_err(|rejected| rejected.code())? {
                    Applied::New { .. } => true,
                    Applied::Known => false,
                    Applied::Waiting { .. } => return Err(Code::ChangeBroken),
                };
                taken.push(Taken { id: encode_hex(&record.id()), new });
            }
            Answer::Submitted(Submitted {
                records: taken,
                fsync_unix_ns: 1_800_000_000_000_000_000,
                told: 1,
                others: 1,
                removed: false,
            })
        }
        Request::Coverage { change } => {
            let settings = || replica.coverage_of_charter(&CharterId(change.0.0));
            let found = replica.coverage(&change.0).or_else(settings).ok_or(Code::ChangeBroken)?;
            let missing = found.missing.iter().filter_map(|key| roster.get(key));
            let missing = missing.map(|m| Missing {
                name: m.name.to_string(),
                node: Text(m.node),
                heard_ms_ago: Some(10_800_000),
            });
            Answer::Coverage(Coverage {
                change,
                of: found.of as u64,
                applied: found.applied as u64,
                missing: missing.collect(),
            })
        }
        Request::Export { .. } => {
            let records = replica.records().map(|record| Bytes(Records::encode(&[record]).unwrap()));
            Answer::Export(Export { records: records.collect(), next: None })
        }
        _ => return Err(Code::RequestMalformed),
    })
}

fn member(m: &member_crdt::Member, roster: &member_crdt::Roster) -> Member {
    let revoked = match &m.state {
        MemberState::Revoked { reason, note, ids, .. } | MemberState::Suspended { reason, note, ids, .. } => {
            Some(Revoked {
                by: vec!["admin".to_owned()],
                reason: reason.as_str().to_owned(),
                note: note.clone(),
                changes: ids.iter().map(|id| Text(*id)).collect(),
            })
        }
        MemberState::Good
        | MemberState::Left
        | MemberState::KeyConflict
        | MemberState::Pending
        | MemberState::Unsettled => None,
    };
    Member {
        name: m.name.to_string(),
        node: Text(m.node),
        first: Text(m.first()),
        wireguard: Text(m.wireguard),
        boot: Text(m.boot),
        address: m.address,
        assurance: m.assurance.as_str().to_owned(),
        tpm: None,
        roles: m.roles.iter().cloned().map(Text).collect(),
        labels: m.labels.iter().cloned().map(Text).collect(),
        assigns: Vec::new(),
        status: match m.state {
            MemberState::Good => MemberStatus::Good,
            MemberState::Revoked { .. } => MemberStatus::Revoked,
            MemberState::Suspended { .. } => MemberStatus::Suspended,
            MemberState::Pending => MemberStatus::Pending,
            MemberState::Unsettled => MemberStatus::Unsettled,
            MemberState::Left => MemberStatus::Left,
            MemberState::KeyConflict => MemberStatus::KeyConflict,
        },
        revoked,
        admit: Text(m.admit),
        admitted_by: Text(m.admitted_by),
        invite: m.invite.map(Text),
        this: false,
        gateway: roster.gateways().iter().any(|g| g.node == m.node),
        linked: false,
        endpoints: Vec::new(),
        version: String::new(),
        cloned: false,
        heard_ms_ago: None,
        liveness: None,
    }
}

fn invite(i: &member_crdt::InviteStanding) -> Invite {
    Invite {
        id: Text(i.id),
        status: match i.state {
            InviteState::Open => InviteStatus::Open,
            InviteState::Spent => InviteStatus::UsedUp,
            InviteState::Cancelled | InviteState::Void => InviteStatus::Cancelled,
        },
        uses: i.uses,
        used_by: Vec::new(),
        redeemer: Text(i.redeemer),
        labels: Vec::new(),
        expires_unix_s: i.expires_unix_s,
        note: i.note.clone(),
        by: "admin".to_owned(),
    }
}
