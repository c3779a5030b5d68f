//! The dials: one session held, and many short ones.

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use conn_auth::{Action, Binding, Dial, To, VerdictError};
use identity::{Heads, OrgId, SecretKey, limits::PING_FRAME_BYTES_MAX};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::{self, Instant, MissedTickBehavior},
};
use transport::{
    Broken, Session, SessionError,
    client::{DialError, DialFault, Step, authenticate, nonce},
};

use crate::{
    report::{Event, Kind, Outcome},
    target::Target,
};

/// Dials in flight to one target; when it is silent, more would only queue.
const IN_FLIGHT_MAX: usize = 128;
/// Outcomes that wait to be written.
const EVENTS_MAX: usize = 4096;
/// The first session may have to wait for the tunnel, or for the target to start.
const SESSION_DEADLINE: Duration = Duration::from_secs(5);
const SESSION_RETRY: Duration = Duration::from_millis(250);
/// The held session shows by echoes that it is served.
const ECHO_INTERVAL: Duration = Duration::from_millis(250);
const ECHO_DEADLINE: Duration = Duration::from_secs(3);

/// A machine's keys.
pub(crate) struct Keys {
    pub(crate) node: SecretKey,
    pub(crate) wireguard: SecretKey,
}

/// Who dials.
pub(crate) struct Attacker {
    pub(crate) org: OrgId,
    pub(crate) keys: Keys,
    pub(crate) auth_port: u16,
}

/// How often, and how long to wait.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    pub(crate) deadline: Duration,
}

/// Starts everything; outcomes come out of the channel, targets named by their place in the list.
pub(crate) fn start(attacker: &Arc<Attacker>, targets: &[Target], pace: Pace) -> mpsc::Receiver<Event> {
    let (events, received) = mpsc::channel(EVENTS_MAX);
    for (number, target) in targets.iter().enumerate() {
        let (attacker, target) = (Arc::clone(attacker), Arc::new(target.clone()));
        let line = Line { target: number, events: events.clone() };
        tokio::spawn(hold(Arc::clone(&attacker), Arc::clone(&target), line.clone()));
        tokio::spawn(knock(attacker, target, line, pace));
    }
    received
}

/// Where the outcomes of one target go.
#[derive(Clone)]
struct Line {
    target: usize,
    events: mpsc::Sender<Event>,
}

impl Line {
    async fn tell(&self, kind: Kind, began: SystemTime, outcome: Outcome) {
        let took = SystemTime::now().duration_since(began).unwrap_or_default();
        let event = Event { target: self.target, kind, began: unix_ns(began), took, outcome };
        // The reader is gone only when the probe ends.
        drop(self.events.send(event).await);
    }
}

pub(crate) fn unix_ns(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// One link session, from the first success until it ends; never renewed, so that its end is seen.
async fn hold(attacker: Arc<Attacker>, target: Arc<Target>, line: Line) {
    loop {
        let began = SystemTime::now();
        let session =
            attacker.dial(&target, "link", PING_FRAME_BYTES_MAX, Instant::now() + SESSION_DEADLINE).await;
        match session {
            Ok(mut session) => {
                line.tell(Kind::Session, began, Outcome::Ok).await;
                let ended = last_word(&mut session).await;
                line.tell(Kind::Session, SystemTime::now(), ended).await;
                return;
            }
            Err(outcome) => line.tell(Kind::Session, began, outcome).await,
        }
        time::sleep(SESSION_RETRY).await;
    }
}

/// Uses the session until it ends or its echoes stop coming.
async fn last_word(session: &mut Session<TcpStream>) -> Outcome {
    let mut beat = time::interval(ECHO_INTERVAL);
    let mut heard = Instant::now();
    let mut number: u64 = 0;
    loop {
        tokio::select! {
            frame = session.recv() => match frame {
                Ok(_) => heard = Instant::now(),
                Err(end) => return Outcome::of_session(&end),
            },
            _ = beat.tick() => {
                if heard.elapsed() >= ECHO_DEADLINE {
                    return Outcome::Timeout;
                }
                number += 1;
                if let Err(end) = session.send(number.to_le_bytes().to_vec()).await {
                    return Outcome::of_session(&end);
                }
            }
        }
    }
}

/// Dials anew at every interval, whatever became of the dials before.
async fn knock(attacker: Arc<Attacker>, target: Arc<Target>, line: Line, pace: Pace) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut interval = time::interval(pace.interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let began = SystemTime::now();
        let Ok(place) = Arc::clone(&in_flight).try_acquire_owned() else {
            line.tell(Kind::Probe, began, Outcome::Skipped).await;
            continue;
        };
        let (attacker, target, line) = (Arc::clone(&attacker), Arc::clone(&target), line.clone());
        tokio::spawn(async move {
            match attacker.dial(&target, "ping", PING_FRAME_BYTES_MAX, Instant::now() + pace.deadline).await {
                Ok(session) => {
                    line.tell(Kind::Probe, began, Outcome::Ok).await;
                    session.close().await;
                }
                Err(outcome) => line.tell(Kind::Probe, began, outcome).await,
            }
            drop(place);
        });
    }
}

impl Attacker {
    /// TCP and conn_auth, as far as VERDICT.
    pub(crate) async fn dial(
        &self,
        target: &Target,
        action: &str,
        frame_max: usize,
        until: Instant,
    ) -> Result<Session<TcpStream>, Outcome> {
        let stream = within(until, TcpStream::connect((target.address, self.auth_port))).await?;
        stream.set_nodelay(true).map_err(|why| Outcome::broken(&why))?;
        let binding = Binding::WireGuard {
            client: self.keys.wireguard.public().to_wireguard(),
            server: target.wireguard,
        };
        let action = Action::new(action, &[]).map_err(|why| Outcome::own(&why))?;
        let dial = Dial { org: self.org, key: &self.keys.node, to: To::Key(target.node), binding, action };
        let pending =
            dial.start(nonce().map_err(|why| Outcome::own(&why))?).map_err(|why| Outcome::own(&why))?;
        let host = format!("[{}]:{}", target.address, self.auth_port);
        let nothing = (Heads([0; 32]), 0);
        match authenticate(stream, &host, pending, nothing, frame_max, until).await {
            Ok((session, _)) => Ok(session),
            Err(why) => Err(Outcome::of_dial(&why)),
        }
    }
}

async fn within<T>(until: Instant, work: impl Future<Output = io::Result<T>>) -> Result<T, Outcome> {
    match time::timeout_at(until, work).await {
        Ok(done) => done.map_err(|why| Outcome::broken(&why)),
        Err(_) => Err(Outcome::Timeout),
    }
}

impl Outcome {
    fn own(why: &dyn std::error::Error) -> Self {
        Self::Closed { code: None, detail: why.to_string() }
    }

    fn broken(why: &io::Error) -> Self {
        if why.kind() == io::ErrorKind::TimedOut {
            return Self::Timeout;
        }
        Self::Closed { code: None, detail: why.to_string() }
    }

    fn of_dial(why: &DialError) -> Self {
        match (&why.fault, why.step) {
            (DialFault::Broken(Broken::Deadline), _) => Self::Timeout,
            (DialFault::Verdict(VerdictError::Refused { code, .. }), _) => Self::Refused { code: *code },
            (DialFault::Status(_) | DialFault::Head(_), Step::Challenge) => {
                Self::Refused { code: Some(why.code()) }
            }
            _ => Self::Closed { code: Some(why.code()), detail: why.to_string() },
        }
    }

    pub(crate) fn of_session(end: &SessionError) -> Self {
        Self::Closed { code: Some(end.code()), detail: end.to_string() }
    }
}
