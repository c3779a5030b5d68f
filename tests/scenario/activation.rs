//! A gateway whose sockets systemd holds.

use std::time::Duration;

use lab::Ready;

use crate::harness;

#[test]
fn a_gateway_starts_with_the_first_machine_that_comes_to_a_socket_of_systemds()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 2);
        org.stop_gateway(0).unwrap();
        let host = org.host(0).unwrap();
        // Another port than the one in its settings, so that it can only be this one.
        let address = format!("{}:7999", host.address());
        let config = host.dir().join("etc/muster-gateway.toml");
        let gateway = harness::programs(&[]).dir.join("muster-gateway");
        let holder = host.program("systemd-socket-activate").args(["--listen", &address]);
        let holder = holder.arg(gateway).arg("--config").arg(config);
        let ready = Ready::Line("Listening on".to_owned());
        let front = holder.spawn(&ready, Duration::from_secs(20)).unwrap();
        let found = org.ask(1, &["debug", "connection", &address]).unwrap();
        assert_eq!(found["ok"], true, "{found}");
        drop(front);
        let refused = org.muster(1, &["--json", "debug", "connection", &address]).unwrap();
        assert!(refused.stdout.contains("MU-5002"), "{}", refused.stdout);
    })
}
