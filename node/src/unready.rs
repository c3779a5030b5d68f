//! The daemon of a machine that is no member at the moment: it says why, and what to do.

use std::time::Duration;

use control::local::{Answer, Failed, LinkStatus, Request, Status};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    notify::Notify,
    prepare::Unready,
    run::{Asks, Signals},
    sockets::Asked,
};

/// Answers status until a signal comes, or until what is in the way may have passed.
pub async fn run(
    why: &Unready,
    signals: &mut Signals,
    requests: &mut mpsc::Receiver<Asked>,
    notify: &Notify,
) -> Asks {
    let Unready { code, detail, .. } = why;
    let seen = if detail.is_empty() { code.cause() } else { detail };
    tracing::warn!(MUSTER_CODE = %code, "{}: {seen} {}", code.title(), code.remedy());
    notify.ready();
    let summary = format!("{code} {}", code.title());
    let started = Instant::now();
    let mut pulse = tokio::time::interval(notify.pulse());
    let passing = code.exit_status() == TRY_AGAIN;
    loop {
        tokio::select! {
            asks = signals.next() => return asks,
            () = sleep_until(started + RETRY), if passing => return Asks::Reload,
            _ = pulse.tick() => notify.alive(&summary),
            Some(Asked { request, reply, .. }) = requests.recv() => {
                let up_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                if reply.send(answer(why, &request, up_ms)).is_err() {
                    tracing::debug!("nobody waited for the answer");
                }
            }
        }
    }
}

fn answer(why: &Unready, request: &Request, up_ms: u64) -> Answer {
    let problem = Failed { code: why.code.into(), detail: why.detail.clone() };
    if *request != (Request::Status {}) {
        return Answer::Failed(problem);
    }
    Answer::Status(Box::new(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: why.stage,
        problems: vec![problem],
        org: None,
        node: None,
        gateway: false,
        up_ms,
        links: LinkStatus::default(),
        freshness: None,
        neighbours: Vec::new(),
    }))
}

/// EX_TEMPFAIL: a busy TPM, a disk that refuses.
const TRY_AGAIN: u8 = 75;
const RETRY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use control::local::State as Stage;
    use identity::Code;

    use super::*;

    #[test]
    fn status_says_why_the_identity_is_unavailable_and_nothing_else_is_answered() {
        let why = Unready {
            code: Code::TpmAbsent,
            detail: "no device".to_owned(),
            stage: Stage::IdentityUnavailable,
        };
        let Answer::Status(status) = answer(&why, &Request::Status {}, 5) else { panic!("no status") };
        assert_eq!((status.state, status.problems[0].code.0), (Stage::IdentityUnavailable, Code::TpmAbsent));
        let Answer::Failed(failed) = answer(&why, &Request::Members {}, 5) else { panic!("an answer") };
        assert_eq!(failed.code.0, Code::TpmAbsent);
    }
}
