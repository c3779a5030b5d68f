//! `bench handshake`: what it costs to know who is there.
//!
//! Every row: a new TCP connection on loopback, authentication, and one byte that the acceptor sends as soon as it
//! trusts the dialler; then the connection is dropped. Acceptor and dialler are one thread each with a current-thread runtime; CPU is both threads' own clocks. Each round measures
//! every row once, in order, so that a slow minute of the machine touches all rows alike.

mod noise;
mod operations;
mod ours;
mod slice;
mod tls;

use crate::{
    Failure,
    table::{Report, median, quantile},
};
use slice::{Protocol, Sample};

pub(crate) fn run(rounds: usize, slice_ms: u64, row: &str) -> Result<Report, Failure> {
    let mut rows = protocols()?;
    let exact = rows.iter().any(|protocol| protocol.name() == row);
    rows.retain(|protocol| if exact { protocol.name() == row } else { protocol.name().contains(row) });
    one_core()?;
    let mut samples: Vec<Vec<Sample>> = rows.iter().map(|_| Vec::new()).collect();
    let mut single: Vec<operations::Costs> = Vec::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        single.push(operations::measure()?);
        for (protocol, samples) in rows.iter().zip(&mut samples) {
            samples.push(slice::measure(protocol, slice_ms)?);
        }
    }
    Ok(report(&rows, &samples, &single))
}

/// Both threads on the core this one is on: they take turns anyway, and waking a second core from its sleep costs a
/// virtual machine more than a handshake, and more with each message.
fn one_core() -> Result<(), Failure> {
    let mut core = rustix::thread::CpuSet::new();
    core.set(rustix::thread::sched_getcpu());
    Ok(rustix::thread::sched_setaffinity(None, &core)?)
}

fn protocols() -> Result<Vec<Protocol>, Failure> {
    let mut rows = vec![Protocol::tcp_floor(), Protocol::websocket_floor()];
    rows.extend(ours::protocols()?);
    rows.extend(tls::protocols()?);
    rows.push(noise::protocol()?);
    Ok(rows)
}

fn report(rows: &[Protocol], samples: &[Vec<Sample>], single: &[operations::Costs]) -> Report {
    let mut report = Report::new("handshake", &["cpu_us", "p50_us", "p99_us", "per_s"]);
    let mut cpu = std::collections::BTreeMap::new();
    let mut p50 = std::collections::BTreeMap::new();
    for (protocol, samples) in rows.iter().zip(samples) {
        let of = |f: fn(&Sample) -> f64| median(&samples.iter().map(f).collect::<Vec<_>>());
        let figures = [
            of(|s| s.cpu_us),
            of(|s| quantile(&s.latencies_us, 0.5)),
            of(|s| quantile(&s.latencies_us, 0.99)),
            of(|s| s.per_s),
        ];
        let [cpu_us, p50_us, ..] = figures;
        cpu.insert(protocol.name(), cpu_us);
        p50.insert(protocol.name(), p50_us);
        report.row(protocol.name(), &figures);
    }
    let names: Vec<&str> = single.first().map(|c| c.iter().map(|(n, _)| *n).collect()).unwrap_or_default();
    let mut operation = std::collections::BTreeMap::new();
    for name in names {
        let values: Vec<f64> =
            single.iter().flat_map(|c| c.iter().filter(|(n, _)| *n == name).map(|(_, us)| *us)).collect();
        operation.insert(name, median(&values));
        report.row(name, &[median(&values), f64::NAN, f64::NAN, f64::NAN]);
    }
    let at =
        |map: &std::collections::BTreeMap<&str, f64>, name: &str| map.get(name).copied().unwrap_or(f64::NAN);
    let floor =
        at(&cpu, "tcp floor") + 2.0 * (at(&operation, "op sign") + at(&operation, "op verify_strict"));
    let first_contact = at(&cpu, "conn_auth ws") + at(&operation, "op wireguard handshake");
    report.ratio("conn_auth_ws_cpu_vs_mtls", at(&cpu, "conn_auth ws") / at(&cpu, "mtls aws-lc"), Some(0.55));
    report.ratio("conn_auth_ws_p50_vs_mtls", at(&p50, "conn_auth ws") / at(&p50, "mtls aws-lc"), Some(0.60));
    report.ratio("conn_auth_ws_cpu_vs_rpk", at(&cpu, "conn_auth ws") / at(&cpu, "rpk aws-lc"), Some(0.75));
    report.ratio("conn_auth_raw_cpu_vs_floor", at(&cpu, "conn_auth raw") / floor, Some(1.75));
    report.ratio("conn_auth_tls_cpu_vs_mtls", at(&cpu, "conn_auth ws in tls") / at(&cpu, "mtls ring"), None);
    report.ratio("first_contact_cpu_vs_mtls", first_contact / at(&cpu, "mtls aws-lc"), None);
    report
}
