use std::net::{Ipv4Addr, SocketAddr};

use control::local::{Failed, Freshness, FreshnessState, LinkStatus, OrgStatus, State};
use identity::{CharterId, Code, Heads, Name, OrgId, RosterDigest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn status(state: State) -> Status {
    Status {
        version: "0.1.0".to_owned(),
        state,
        problems: Vec::new(),
        org: None,
        node: None,
        gateway: false,
        up_ms: 1500,
        links: LinkStatus { refused: 7, ..LinkStatus::default() },
        freshness: Some(Freshness { state: FreshnessState::Stale, compared_ms_ago: Some(61_000) }),
        neighbours: Vec::new(),
    }
}

/// What a client gets from a musterd that says this of itself, or says nothing.
async fn get(says: Option<Status>, request: &str) -> String {
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (asked, mut requests) = mpsc::channel::<Asked>(1);
    tokio::spawn(serve(listener, asked));
    tokio::spawn(async move {
        while let Some(asked) = requests.recv().await {
            match &says {
                Some(status) => drop(asked.reply.send(Answer::Status(Box::new(status.clone())))),
                None => drop(asked.reply),
            }
        }
    });
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn asks(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn health_tells_what_musterd_says_of_itself_and_that_it_says_nothing() {
    let stale = || Some(status(State::Ready));
    let alive = get(stale(), &asks("/livez")).await;
    assert!(alive.starts_with("HTTP/1.1 200") && alive.ends_with("ok\n"), "{alive}");
    let ready = get(stale(), &asks("/readyz")).await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains(r#""why":"no member list""#), "{ready}");
    let keys = get(stale(), &asks("/readyz/keys")).await;
    assert!(keys.starts_with("HTTP/1.1 200"), "{keys}");
    let lost = get(Some(status(State::NotMember)), &asks("/readyz/membership")).await;
    assert!(lost.starts_with("HTTP/1.1 503") && lost.contains("not a member any more"), "{lost}");
    assert!(get(stale(), &asks("/readyz/else")).await.starts_with("HTTP/1.1 404"));
    assert!(get(None, &asks("/livez")).await.starts_with("HTTP/1.1 503"), "it does not answer");
    let mut full = status(State::Ready);
    full.problems.push(Failed { code: Code::DiskRefused.into(), detail: "no space left".to_owned() });
    let disk = get(Some(full), &asks("/readyz/disk")).await;
    assert!(disk.starts_with("HTTP/1.1 503") && disk.contains("no space left"), "{disk}");
}

#[tokio::test]
async fn metrics_show_how_stale_the_member_list_is() {
    let shown = get(Some(status(State::Ready)), &asks("/metrics")).await;
    for line in [
        "muster_build_info{version=\"0.1.0\"} 1",
        "muster_state{state=\"ready\"} 1",
        "muster_state{state=\"alone\"} 0",
        "muster_membership_state{state=\"stale\"} 1",
        "muster_membership_lag_seconds 61.0",
        "muster_auth_refusals_total 7",
        "# EOF",
    ] {
        assert!(shown.lines().any(|shown| shown.trim() == line), "{line} is not in {shown}");
    }
}

#[tokio::test]
async fn nobody_is_answered_who_asks_for_another_host_and_nothing_listens_beyond_the_loopback() {
    for host in ["evil.example", "evil.example:9464", "10.0.0.1", "127.0.0.1.evil.example", ""] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = get(Some(status(State::Ready)), &request).await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{host}: {answer}");
    }
    let post = asks("/metrics").replace("GET", "POST");
    assert!(get(Some(status(State::Ready)), &post).await.starts_with("HTTP/1.1 405"));
    let everywhere = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).await;
    assert_eq!(everywhere.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
}

/// The metrics that alerts name and that are not shown.
fn unknown(alerts: &str, shown: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = alerts.split(|c: char| !is_part(c)).filter(|word| word.starts_with("muster_"));
    let is_shown = |word: &&str| {
        let mut lines = shown.lines().filter(|line| !line.starts_with('#'));
        lines.any(|line| line.strip_prefix(*word).is_some_and(|rest| rest.starts_with(['{', ' '])))
    };
    words.filter(|word| !is_shown(word)).map(str::to_owned).collect()
}

#[test]
fn every_metric_that_an_example_alert_names_is_exported() {
    let mut all = status(State::Ready);
    all.org = Some(OrgStatus {
        id: OrgId([1; 32]).into(),
        name: Name::parse("demo").unwrap().into(),
        settings: 1,
        settings_id: CharterId([2; 32]).into(),
        list: RosterDigest([3; 32]).into(),
        heads: Heads([4; 32]).into(),
        records: 9,
        members: 3,
        former: 1,
        forks: 0,
    });
    all.problems.push(Failed { code: Code::DiskRefused.into(), detail: String::new() });
    let shown = metrics::encode(&all);
    let alerts = include_str!("../../../packaging/prometheus/alerts.yml");
    assert_eq!(unknown(alerts, &shown), Vec::<String>::new(), "{shown}");
    assert!(alerts.matches("muster_").count() > 8);
    let misspelt = alerts.replace("muster_membership_forks", "muster_membership_fork");
    assert_eq!(unknown(&misspelt, &shown), ["muster_membership_fork"]);
}
