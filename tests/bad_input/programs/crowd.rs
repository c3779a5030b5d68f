//! BI of many at once: as many connections as a program holds, each of which says next to nothing and is made
//! anew as soon as it is cut, and the honest machine that comes meanwhile.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use identity::{SecretKey, limits::UNPROVEN_MAX};
use lab::{
    Namespace,
    org::{GATEWAY_PORT, Org},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    block_on,
    front::{Front, connect},
    hold::Hold,
    member::{AUTH_PORT, Hostile},
};
use crate::harness;

const HANDSHAKES: usize = 100;
/// A machine that has no time for us makes the crowd a little smaller, or gathers it slowly.
const HELD_MIN: usize = UNPROVEN_MAX * 3 / 4;
const GATHERING: Duration = Duration::from_secs(5);
/// How often one of the crowd looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// In another /24 than the lab's machines.
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));

#[test]
fn a_gateway_serves_while_it_holds_512_connections_that_say_nothing() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 1);
        let mut front = Front::of(&org, &org.invite(0, 1).unwrap());
        let gateway = org.take_gateway(0).unwrap();
        let network = |node: usize| org.host(node).unwrap().namespace();
        far_away(&org, 0, 2);
        let key = SecretKey::from_seed(&[0x31; 32]);
        let to = SocketAddr::from((network(0).address(), GATEWAY_PORT));
        let near = Crowd { to, from: None, network: network(2), member: None, held_by: gateway.pid() };
        let far = Crowd { from: Some(FAR), ..near };
        // Whoever was answered once, be it with a refusal, may have all the places.
        for crowd in [&near, &far] {
            front.from = crowd.from;
            network(2).run(|| block_on(async { drop(front.ask(&key, vec![]).await) })).unwrap();
        }
        front.from = None;
        let honest = |beside: &str| {
            let handshakes = || block_on(measure(async || front.session(&key).await.close().await));
            report(beside, network(1).run(handshakes).unwrap());
        };
        honest("nobody");
        // An allocator keeps what a first crowd took; a second one must not take more.
        near.beside(|_| honest("the first crowd"));
        let base = Hold::of(gateway.pid());
        for (name, crowd) in
            [("BI-slow-512-from-the-same-network", near), ("BI-slow-512-from-another-network", far)]
        {
            crowd.beside(|held| honest(&format!("{held} ({name})")));
            base.assert_back(gateway.pid(), "muster-gateway");
        }
        // Whoever came while it did would have waited for a second SYN, a second later.
        assert_eq!(network(0).run(overflows).unwrap(), 0, "the kernel's queue of connections overflowed");
    })
}

#[test]
fn a_musterd_serves_while_a_member_holds_512_connections_that_say_nothing() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 3, 3);
        for turned in [1, 2] {
            org.stop_musterd(turned).unwrap();
        }
        let (hostile, member) = (Hostile::turned(&org, 1, 0), Hostile::turned(&org, 2, 0));
        let musterd = org.take_musterd(0).unwrap();
        let network = |node: usize| org.host(node).unwrap().namespace();
        let honest = |beside: &str| {
            let handshakes = || {
                block_on(async {
                    let tunnelled = member.tunnel().await;
                    // The tunnel's own handshake is not what is measured.
                    tunnelled.session("ping").await.close().await;
                    let times = measure(async || tunnelled.session("ping").await.close().await).await;
                    tunnelled.leave().await;
                    times
                })
            };
            report(beside, network(2).run(handshakes).unwrap());
        };
        honest("nobody");
        let crowd = Crowd {
            to: SocketAddr::from((hostile.target_address, AUTH_PORT)),
            from: None,
            network: network(1),
            member: Some(&hostile),
            held_by: musterd.pid(),
        };
        crowd.beside(|_| honest("the first crowd"));
        let base = Hold::of(musterd.pid());
        crowd.beside(|held| honest(&format!("{held} ({})", "BI-slow-512-in-a-tunnel")));
        base.assert_back(musterd.pid(), "musterd");
    })
}

/// Gives a machine an address in another network, which another one can answer.
fn far_away(org: &Org, asked: usize, machine: usize) {
    let ip = |node: usize, arguments: &[&str]| {
        let name = org.host(node).unwrap().namespace().name();
        assert!(Command::new("ip").args(["-n", name]).args(arguments).status().unwrap().success());
    };
    ip(machine, &["addr", "add", &format!("{FAR}/32"), "dev", "eth0"]);
    ip(asked, &["route", "add", &format!("{FAR}/32"), "dev", "eth0"]);
}

/// How often a queue of this thread's network had no room for a connection.
fn overflows() -> u64 {
    let counters = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find_map(|(name, value)| (name == "ListenOverflows").then(|| value.parse().unwrap())).unwrap()
}

/// From the first segment to the end of each.
async fn measure(handshake: impl AsyncFn()) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..HANDSHAKES {
        let begun = Instant::now();
        handshake().await;
        times.push(begun.elapsed());
    }
    times
}

fn report(beside: &str, mut times: Vec<Duration>) {
    assert_eq!(times.len(), HANDSHAKES, "every honest handshake came to its end");
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    println!("{HANDSHAKES} honest handshakes beside {beside}: p50 {:?}, p99 {:?}", at(50), at(99));
}

/// As many connections as a program holds.
#[derive(Clone, Copy)]
struct Crowd<'a> {
    to: SocketAddr,
    from: Option<IpAddr>,
    network: &'a Namespace,
    /// Whose tunnel they take, if not the open network.
    member: Option<&'a Hostile>,
    held_by: u32,
}

/// Ends the crowd, whatever became of the work beside it.
struct Stop(Arc<AtomicBool>);

impl Crowd<'_> {
    /// Does something while they are there. It is told how many were held when it began.
    fn beside(&self, work: impl FnOnce(usize)) {
        let before = Hold::of(self.held_by);
        let (stop, dials) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        thread::scope(|scope| {
            let stop_at_end = Stop(Arc::clone(&stop));
            let crowd = scope.spawn(|| self.network.run(|| block_on(self.gather(&stop, &dials))));
            let begun = Instant::now();
            let held = loop {
                let held = Hold::read(self.held_by).descriptors.saturating_sub(before.descriptors);
                if held >= UNPROVEN_MAX || begun.elapsed() > GATHERING {
                    break held;
                }
                thread::sleep(Duration::from_millis(20));
            };
            assert!(held >= HELD_MIN, "only {held} are held");
            work(held);
            drop(stop_at_end);
            crowd.join().unwrap().unwrap();
        });
        before.assert_closed(self.held_by);
        let dials = dials.load(Ordering::Relaxed);
        println!("the crowd dialled {dials} times");
    }

    async fn gather(&self, stop: &Arc<AtomicBool>, dials: &Arc<AtomicUsize>) {
        let tunnelled = match self.member {
            Some(member) => Some(member.tunnel().await),
            None => None,
        };
        if let Some(tunnelled) = &tunnelled {
            tunnelled.session("ping").await.close().await;
        }
        let mut all = JoinSet::new();
        for number in 0..UNPROVEN_MAX {
            let (to, from, stop, dials) = (self.to, self.from, Arc::clone(stop), Arc::clone(dials));
            all.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    dials.fetch_add(1, Ordering::Relaxed);
                    match timeout(GATHERING, connect(to, from)).await {
                        Ok(Ok(stream)) => linger(stream, number, &stop).await,
                        Ok(Err(_)) | Err(_) => sleep(LOOK).await,
                    }
                }
            });
        }
        while all.join_next().await.is_some() {}
    }
}

/// Says some of the start of a ClientHello, and stays until it is cut.
async fn linger(mut stream: TcpStream, number: usize, stop: &AtomicBool) {
    drop(stream.write_all(&b"\x16\x03\x01\x02\x00\x01\x00"[..number % 8]).await);
    let mut answer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        match timeout(LOOK, stream.read(&mut answer)).await {
            Ok(Ok(1..)) | Err(_) => {}
            Ok(Ok(0) | Err(_)) => return,
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
