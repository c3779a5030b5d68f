//! `bench propagation`: how long until the last of many simulated nodes has one new change.
//!
//! Ours: real `overlay::Overlay`s make the graph of sessions by dialling one another; then one change is
//! flooded over it. Beside it memberlist with its defaults on the same seeds, so on the same delays. Both
//! are event simulations in one thread: nothing is measured on the wire, and no CPU but a tenth of a
//! millisecond a hop is counted.

mod flood;
mod memberlist;
mod network;
mod swim;

use serde_json::{Value, json};

use crate::{
    Failure,
    table::{Report, median, quantile},
};
use network::Network;

/// Fewer rounds make no median.
const SEEDS_MIN: usize = 5;
/// Above it a run takes seconds, and fewer seeds must do.
const MANY_NODES: usize = 3_000;
const LOSSES: [u8; 2] = [0, 5];
const MEAN_DELAYS_WANTED: f64 = 8.0;
const OF_MEMBERLIST_WANTED: f64 = 0.35;

pub(crate) fn run(sizes: &[u32], rounds: usize) -> Result<Report, Failure> {
    let columns = ["last ms", "worst ms", "median ms", "mean delays", "messages/node"];
    let mut report = Report::new("propagation", &columns);
    let mut graphs = Vec::new();
    for &nodes in sizes {
        let nodes = usize::try_from(nodes)?;
        let seeds = if nodes > MANY_NODES { SEEDS_MIN } else { rounds.max(SEEDS_MIN) };
        eprintln!("{nodes} nodes, {seeds} seeds: their sessions come up");
        let mut runs: Vec<flood::Graph> = Vec::new();
        for seed in 0..seeds {
            runs.push(flood::Graph::form(nodes, u64::try_from(seed)?)?);
        }
        graphs.push(shape(nodes, &runs));
        for loss in LOSSES {
            eprintln!("{nodes} nodes, {loss} % loss");
            let mut ours = Vec::new();
            let mut theirs = Vec::new();
            for (graph, seed) in runs.iter().zip(0..) {
                let network = Network::new(seed, loss);
                ours.push(graph.flood(&network)?);
                theirs.push(memberlist::spread(nodes, &network, seed)?);
            }
            let flood = row(&mut report, "flood", nodes, loss, &ours);
            let gossip = row(&mut report, "memberlist", nodes, loss, &theirs);
            let name = |what: &str| format!("{what}, {nodes} nodes, {loss} % loss");
            report.ratio(name("last in mean delays"), flood / network::MEAN_MS, Some(MEAN_DELAYS_WANTED));
            report.ratio(name("last / memberlist's"), flood / gossip, Some(OF_MEMBERLIST_WANTED));
        }
    }
    report.note("graphs", Value::Array(graphs));
    report.note("model", json!(MODEL));
    Ok(report)
}

/// `bench liveness`: what probing costs each node, and how soon a death is known.
pub(crate) fn liveness(sizes: &[u32], rounds: usize) -> Result<Report, Failure> {
    let columns =
        ["datagrams/s", "bytes/s", "most bytes/s", "mistakes", "noticed ms", "at most ms", "unnoticed"];
    let mut report = Report::new("liveness", &columns);
    for &nodes in sizes {
        let nodes = usize::try_from(nodes)?;
        let seeds = u64::try_from(if nodes > MANY_NODES { 1 } else { rounds.max(1) })?;
        for loss in LOSSES {
            eprintln!("{nodes} nodes, {loss} % loss, {seeds} seeds");
            let mut runs = Vec::new();
            for seed in 0..seeds {
                let graph = flood::Graph::form(nodes, seed)?;
                runs.push(swim::probe(&graph, &Network::new(seed, loss), seed)?);
            }
            let each =
                |of: &dyn Fn(&swim::Probing) -> f64| median(&runs.iter().map(of).collect::<Vec<f64>>());
            report.row(
                format!("{nodes} nodes, {loss} % loss"),
                &[
                    each(&|run| run.datagrams_each_s),
                    each(&|run| run.bytes_each_s),
                    each(&|run| run.bytes_each_s_most),
                    each(&|run| count(run.mistakes)),
                    each(&|run| median(&run.noticed_ms)),
                    each(&|run| quantile(&run.noticed_ms, 1.0)),
                    each(&|run| count(run.unnoticed)),
                ],
            );
        }
    }
    Ok(report)
}

/// One change's way through one org.
struct Spread {
    /// When each node had it, since its author signed it.
    arrivals_ms: Vec<f64>,
    messages: u64,
}

fn row(report: &mut Report, what: &str, nodes: usize, loss: u8, spreads: &[Spread]) -> f64 {
    let each = |of: &dyn Fn(&Spread) -> f64| spreads.iter().map(of).collect::<Vec<f64>>();
    let last = each(&|s| quantile(&s.arrivals_ms, 1.0));
    let typical = median(&last);
    let messages = median(&each(&|s| count(s.messages) / count(s.arrivals_ms.len())));
    let half = median(&each(&|s| median(&s.arrivals_ms)));
    let figures = [typical, quantile(&last, 1.0), half, typical / network::MEAN_MS, messages];
    report.row(format!("{what}, {nodes} nodes, {loss} % loss"), &figures);
    typical
}

fn shape(nodes: usize, graphs: &[flood::Graph]) -> Value {
    let most = graphs.iter().map(flood::Graph::sessions_most).max();
    let mean = median(&graphs.iter().map(flood::Graph::sessions_mean).collect::<Vec<f64>>());
    let steps: Vec<f64> = graphs.iter().map(|graph| count(graph.steps())).collect();
    let compared = graphs.iter().map(flood::Graph::compared_most).max().unwrap_or(0);
    let most = most.unwrap_or(0);
    eprintln!(
        "  sessions a node: {mean:.2}, at most {most}, comparing at most {compared}; steps: {}",
        median(&steps)
    );
    json!({ "nodes": nodes, "sessions_mean": mean, "sessions_most": most, "compared_most": compared, "steps": median(&steps) })
}

fn count<N: TryInto<u64>>(n: N) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure to print")]
    n.try_into().map_or(f64::NAN, |n| n as f64)
}

const MODEL: &str = "one-way delays of 20 to 100 ms, fixed for each pair, skewed to the short ones, mean 40 ms; \
     0.1 ms of work a hop. flood: a session is TCP, so a lost segment comes a round trip and 200 ms later, doubled \
     each further time (the timeout of a lone segment on Linux); ends are compared every 5 s. memberlist 0.5, LAN \
     defaults: gossip to 3 every 200 ms, 4 ceil(log10(n+1)) transmissions, also on probes and their answers each \
     second, push/pull every 30 s stretched by its own rule; a lost packet is lost";
