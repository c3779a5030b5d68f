//! The figures of `muster status`, in the text format of OpenMetrics. Names are from the Prometheus
//! conventions: one prefix, base units, `_total` on what only grows.

use control::local::{FreshnessState, Liveness, State, Status};
use prometheus_client::{
    encoding::text,
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

/// The media type of what [`encode`] returns.
pub(super) const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = [(&'static str, String); 1];

pub(super) fn encode(status: &Status) -> String {
    let mut all = Registry::with_prefix("muster");
    all.register("build", "What runs", Info::new([("version", status.version.clone())]));
    all.register_with_unit("up", "Since musterd started", Unit::Seconds, gauge_f(seconds(status.up_ms)));
    all.register(
        "state",
        "How far this machine is: one is 1",
        one_of(&STATES, "state", |s| *s == status.state),
    );
    let links = status.links;
    all.register("peers_linked", "Members with a link up", gauge(links.linked));
    all.register("sessions", "Sessions of every action", gauge(links.sessions));
    all.register("auth_refusals", "Handshakes refused since start", ConstCounter::new(links.refused));
    let bytes = |registry: &mut Registry, name, help, count| {
        registry.register_with_unit(name, help, Unit::Bytes, ConstCounter::new(count));
    };
    bytes(&mut all, "wireguard_rx", "Received in tunnels", links.received);
    bytes(&mut all, "wireguard_tx", "Sent in tunnels", links.sent);
    let problems: Family<Labels, Gauge> = Family::default();
    for problem in &status.problems {
        problems.get_or_create(&[("code", problem.code.0.to_string())]).set(1);
    }
    all.register("problem", "What is wrong, by code", problems);
    if let Some(org) = &status.org {
        let members: Family<Labels, Gauge> = Family::default();
        for (state, count) in [("good", org.members), ("former", org.former)] {
            members
                .get_or_create(&[("state", state.to_owned())])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        all.register("members", "Members by what the list says of them", members);
        all.register("membership_records", "Signed changes and reports held", gauge(org.records));
        all.register("membership_forks", "Authors with two changes at one place", gauge(org.forks));
        all.register(
            "org_settings_version",
            "Number of the org settings in force",
            gauge(u64::from(org.settings)),
        );
        let heads = [("heads", org.heads.0.to_string()), ("list", org.list.0.to_string())];
        all.register("membership_head", "Equal on two machines that agree", Info::new(heads));
    }
    if let Some(freshness) = &status.freshness {
        let is = |state: &FreshnessState| *state == freshness.state;
        all.register(
            "membership_state",
            "How fresh the member list is: one is 1",
            one_of(&FRESH, "state", is),
        );
        if let Some(ago) = freshness.compared_ms_ago {
            let help = "Since another member last answered what it holds";
            all.register_with_unit("membership_lag", help, Unit::Seconds, gauge_f(seconds(ago)));
        }
    }
    let neighbours: Family<Labels, Gauge> = Family::default();
    for (name, liveness) in LIVENESS {
        let count = status.neighbours.iter().filter(|n| n.liveness == liveness).count();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        neighbours.get_or_create(&[("state", name.to_owned())]).set(count);
    }
    all.register("neighbours", "Members kept in step with, by whether they answer", neighbours);
    let mut text = String::new();
    match text::encode(&mut text, &all) {
        Ok(()) => text,
        // A string takes everything.
        Err(_) => String::new(),
    }
}

fn one_of<T>(
    all: &[(&'static str, T)],
    label: &'static str,
    is: impl Fn(&T) -> bool,
) -> Family<Labels, Gauge> {
    let family: Family<Labels, Gauge> = Family::default();
    for (name, value) in all {
        family.get_or_create(&[(label, (*name).to_owned())]).set(i64::from(is(value)));
    }
    family
}

fn gauge(count: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

fn gauge_f(value: f64) -> ConstGauge<f64> {
    ConstGauge::new(value)
}

fn seconds(ms: u64) -> f64 {
    core::time::Duration::from_millis(ms).as_secs_f64()
}

const STATES: [(&str, State); 5] = [
    ("ready", State::Ready),
    ("alone", State::Alone),
    ("identity-unavailable", State::IdentityUnavailable),
    ("not-enrolled", State::NotEnrolled),
    ("not-member", State::NotMember),
];
const FRESH: [(&str, FreshnessState); 4] = [
    ("in-step", FreshnessState::InStep),
    ("comparing", FreshnessState::Comparing),
    ("apart", FreshnessState::Apart),
    ("stale", FreshnessState::Stale),
];
const LIVENESS: [(&str, Liveness); 3] =
    [("alive", Liveness::Alive), ("suspect", Liveness::Suspect), ("silent", Liveness::Silent)];
