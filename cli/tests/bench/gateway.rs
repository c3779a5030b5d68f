//! A gateway of the bench's org on a loopback port: TLS and conn_auth as the product has them, and the
//! stand-in musterd's replica behind.

use std::{
    fs,
    sync::{Arc, Mutex},
    thread,
};

use conn_auth::{Accept, Binding, Holder, Reference, Standing};
use identity::{Heads, SecretKey, limits::SYNC_FRAME_BYTES_MAX};
use member_crdt::{Applied, Replica};
use org_trust::{Outcome, Record, Reply, Request, Submitted};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use transport::{Deadlines, Incoming, ServerTls, client::encode_charters};

use super::{Bench, Musterd};

/// Serves until the test's process ends.
pub(crate) fn start(bench: &Bench, musterd: &Musterd, listener: std::net::TcpListener) {
    let read = |name: &str| fs::read(bench.path(name)).unwrap();
    let tls = ServerTls::from_pem(&read("etc/gateway.crt"), &read("etc/gateway.key")).unwrap();
    start_as(tls, bench.gateway_key(), musterd, listener);
}

/// The same with another certificate and role key.
pub(crate) fn start_as(tls: ServerTls, key: SecretKey, musterd: &Musterd, listener: std::net::TcpListener) {
    let replica = Arc::clone(&musterd.replica);
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream, &tls, &key, &replica).await;
            }
        });
    });
}

async fn serve(tcp: TcpStream, tls: &ServerTls, key: &SecretKey, replica: &Mutex<Replica>) {
    let (stream, exporter) = tls.accept(tcp).await.unwrap();
    let mut incoming = Incoming::new(stream, Deadlines::since(Instant::now()));
    let upgrade = loop {
        match incoming.next().await.unwrap() {
            transport::Request::Get(get) => {
                let settings: Vec<Vec<u8>> = match transport::after_of(get.target()) {
                    Some(after) => {
                        let replica = replica.lock().unwrap();
                        replica.chain().after(&after).map(|c| c.bytes().to_vec()).collect()
                    }
                    None => Vec::new(),
                };
                incoming = get.answer(&encode_charters(settings.iter().map(Vec::as_slice))).await.unwrap();
            }
            transport::Request::Upgrade(upgrade) => break upgrade,
            transport::Request::Inner(_) => return,
        }
    };
    let roster = replica.lock().unwrap().roster();
    let accept = Accept { org: roster.org(), key, binding: Binding::Tls(exporter) };
    let pending = accept.on_hello(upgrade.hello(), [5; 32]).unwrap();
    let switched = upgrade.challenge(pending.challenge()).await.unwrap();
    let (proof, verdict) = switched.proof().await.unwrap();
    let proven = pending.on_proof(&proof).unwrap();
    assert!(roster.admins().iter().any(|admin| admin.key == proven.peer()), "only admins come here");
    let admitted = proven.admit(Standing::Good(Holder::Admin)).unwrap();
    let line = admitted.verdict_ok(Reference([6; 8]), Heads([0; 32]), 0);
    let mut session = verdict.accept(&line, SYNC_FRAME_BYTES_MAX).await.unwrap();
    let request = Request::decode(&session.recv().await.unwrap()).unwrap();
    let frames = answer(&mut replica.lock().unwrap(), request);
    for frame in frames {
        session.send(frame).await.unwrap();
    }
    // The client closes.
    drop(session.recv().await);
}

fn answer(replica: &mut Replica, request: Request) -> Vec<Vec<u8>> {
    match request {
        // More than was asked for: the client looks for what it wants.
        Request::Fetch(_) => {
            let end = Reply::End { heads: replica.heads(), count: replica.records().count() as u64 };
            Reply::stream(replica.records().collect::<Vec<Record>>()).chain([end.encode()]).collect()
        }
        Request::Submit(records) => {
            let outcomes = records.iter().map(|record| match replica.apply(record) {
                Ok(Applied::New { .. }) => Outcome::Applied,
                Ok(Applied::Known | Applied::Waiting { .. }) => Outcome::Known,
                Err(rejected) => Outcome::Refused(rejected.code()),
            });
            let outcomes: Vec<Outcome> = outcomes.collect();
            // It is in contact with every member but those that are far.
            let (mut told, mut others) = (0, 0);
            for member in replica.roster().good().filter(|member| member.name.as_str() != "n1") {
                others += 1;
                told += u32::from(!member.name.as_str().starts_with("far"));
            }
            vec![Reply::Submitted(Submitted { outcomes, told, others }).encode()]
        }
        Request::Enrol(_)
        | Request::Attest(_)
        | Request::Quote(_)
        | Request::Boot { .. }
        | Request::Share(_) => Vec::new(),
    }
}
