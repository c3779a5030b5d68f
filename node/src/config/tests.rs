use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use attest::Accepted;
use identity::Code;
use serde_json::json;
use toml::Table;

use super::{setting::SETTINGS, *};
use crate::{
    blobs::Room,
    state::{OnClone, OnStale},
};

fn parse(text: &str) -> Result<Config, ConfigError> {
    let mut reading = Reading::default();
    reading.text("muster.toml", text);
    reading.into_config()
}

#[test]
fn every_setting_can_be_set() {
    let config = parse(
        "state_dir = '/s'\n[keys]\nstorage = 'file'\ntpm = '/t'\n[network]\ninterface = 'm1'\nport = 1\n\
         auth_port = 2\nendpoints = ['127.0.0.1:3']\nallow = ['tcp/22', 'udp/53']\n[members]\n\
         on_stale = 'deny-new'\nstale_after = '2h'\non_clone = 'suspend'\n[control]\n\
         socket = '/c'\n[gateway]\nsocket = '/g'\n[health]\nlisten = '[::1]:9'\n[names]\nlisten = '127.0.0.1:5355'\n[blobs]\nmax = '10 GiB'\nmember = '512MiB'\n[attestation]\n\
         roots = '/r'\nimages = []\nsecure_boot = ['\
         0707070707070707070707070707070707070707070707070707070707070707']\n",
    )
    .unwrap();
    assert_eq!(
        config,
        Config {
            state_dir: PathBuf::from("/s"),
            storage: Storage::File,
            tpm: PathBuf::from("/t"),
            interface: "m1".to_owned(),
            port: 1,
            auth_port: 2,
            endpoints: vec!["127.0.0.1:3".parse().unwrap()],
            allow: vec![Allow::Tcp(22), Allow::Udp(53)],
            policy: Policy {
                on_stale: OnStale::DenyNew,
                stale_after: Duration::from_secs(7_200),
                on_clone: OnClone::Suspend,
            },
            makers: Some(PathBuf::from("/r")),
            attestation: Attestation {
                makers: None,
                accepted: Accepted { secure_boot: vec![[7; 32]], images: Vec::new() },
            },
            control_socket: PathBuf::from("/c"),
            gateway_socket: Some(PathBuf::from("/g")),
            exposed: Offers::new(),
            blobs: BlobRoom { max: Some(10 << 30), member: Some(512 << 20) },
            health: Some("[::1]:9".parse().unwrap()),
            names: Some("127.0.0.1:5355".parse().unwrap()),
        }
    );
    let everywhere = Config::of_text("test", "[names]\nlisten = '0.0.0.0:53'\n");
    assert!(matches!(everywhere, Err(ConfigError::BadValue { key: "names.listen", .. })));
    let everywhere = Config::of_text("test", "[health]\nlisten = '0.0.0.0:9464'\n");
    assert!(matches!(everywhere, Err(ConfigError::BadValue { key: "health.listen", .. })));
}

#[test]
fn a_length_has_a_unit_and_half_of_it_all_is_one_members() {
    for bad in ["10", "0 GiB", "ten GiB", "10 GB", "-1 MiB", "99999999999 TiB", ""] {
        let given = Config::of_text("test", &format!("[blobs]\nmax = '{bad}'\n"));
        assert!(matches!(given, Err(ConfigError::BadValue { key: "blobs.max", .. })), "{bad}");
    }
    assert_eq!(Config::default().blobs.room(), None, "nothing is kept unless somebody says so");
    let room = |text| Config::of_text("test", text).unwrap().blobs.room().unwrap();
    assert_eq!(room("[blobs]\nmax = '10 KiB'\n"), Room { max: 10_240, member: 5_120 });
    assert_eq!(room("[blobs]\nmax = '1 KiB'\nmember = '1 TiB'\n"), Room { max: 1_024, member: 1_024 });
}

#[test]
fn a_service_is_declared_with_its_place_and_anything_else_is_refused() {
    let text = "[expose.ssh]\nto = '127.0.0.1:22'\n[expose.pg]\nto = 'unix:/s'\nproxy_protocol = true\n";
    let offers: Vec<_> = parse(text).unwrap().exposed.into_iter().collect();
    let shown = offers.iter().map(|(name, offer)| format!("{name} {} {}", offer.to, offer.proxy_protocol));
    assert_eq!(shown.collect::<Vec<_>>(), ["pg unix:/s true", "ssh 127.0.0.1:22 false"]);
    for bad in [
        "[expose.sync]\nto = '127.0.0.1:22'",
        "[expose.ssh]\nto = '10.0.0.1:22'",
        "[expose.ssh]\nproxy_protocol = true",
        "[expose.ssh]\nto = '127.0.0.1:22'\nproxy_protocol = 'yes'",
        "[expose]\nssh = '127.0.0.1:22'",
    ] {
        assert!(matches!(parse(bad), Err(ConfigError::BadValue { key: "expose", .. })), "{bad}");
    }
    let Err(ConfigError::UnknownKey { key, nearest, .. }) =
        parse("[expose.ssh]\nto = '127.0.0.1:22'\nproxy-protocol = true")
    else {
        panic!("a key that is not there");
    };
    assert_eq!((key.as_str(), nearest), ("expose.ssh.proxy-protocol", "expose.ACTION.proxy_protocol"));
}

#[test]
fn the_fronts_socket_and_the_operators_have_no_directory_in_common() {
    let load = |gateway: &str| {
        let socket = ("MUSTER_GATEWAY_SOCKET".to_owned(), gateway.to_owned());
        let control = ("MUSTER_CONTROL_SOCKET".to_owned(), "/run/muster/musterd.sock".to_owned());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("muster.toml");
        fs::write(&file, "").unwrap();
        Config::load(Some(&file), [socket, control])
    };
    assert!(load("/run/muster-gateway/gateway.sock").is_ok());
    assert_eq!(load("/run/muster/gateway.sock").unwrap_err().code(), Code::ConfigBadValue);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    for (text, wrong, right) in [
        ("[network]\nprot = 1", "network.prot", "network.port"),
        ("[keys]\nstorrage = 'tpm'", "keys.storrage", "keys.storage"),
        ("statedir = '/s'", "statedir", "state_dir"),
        ("[gatway]\nsocket = '/s'", "gatway.socket", "gateway.socket"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code(), Code::ConfigUnknownKey);
        let ConfigError::UnknownKey { key, nearest, .. } = error else { panic!("{error}") };
        assert_eq!((key.as_str(), nearest), (wrong, right));
    }
}

#[test]
fn a_wrong_value_is_named_with_what_it_takes() {
    for text in [
        "state_dir = 's'",
        "state_dir = 1",
        "network = 1",
        "[keys]\nstorage = 'disk'",
        "[network]\nport = 0",
        "[network]\nport = 65536",
        "[network]\nport = '1'",
        "[network]\nallow = ['icmp']",
        "[network]\nendpoints = ['host:1']",
        "[network]\ninterface = 'sixteen-letters-'",
        "[members]\non_stale = 'never'",
        "[members]\nstale_after = '9s'",
        "[members]\nstale_after = '10'",
        "[members]\non_clone = 'refuse'",
    ] {
        let code = parse(text).unwrap_err().code();
        assert!(matches!(code, Code::ConfigBadValue | Code::ConfigUnknownKey), "{text}");
    }
}

#[test]
fn the_environment_wins_over_drop_ins_and_these_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("muster.toml");
    write(&main, "[network]\nport = 1\nauth_port = 1\ninterface = 'a'\n");
    fs::create_dir(dir.path().join("muster.toml.d")).unwrap();
    write(&dir.path().join("muster.toml.d/20.toml"), "[network]\nauth_port = 3\n");
    write(&dir.path().join("muster.toml.d/10.toml"), "[network]\nauth_port = 2\ninterface = 'b'\n");
    let environment = [
        ("MUSTER_NETWORK_INTERFACE", "c"),
        ("MUSTER_PASSPHRASE", "x"),
        ("MUSTER_NETWORK_ALLOW", "tcp/1, udp/2"),
    ];
    let config = Config::load(Some(&main), environment.map(|(k, v)| (k.to_owned(), v.to_owned()))).unwrap();
    assert_eq!((config.port, config.auth_port, config.interface.as_str()), (1, 3, "c"));
    assert_eq!(config.allow, [Allow::Tcp(1), Allow::Udp(2)]);
    let wrong = [("MUSTER_NETWORK_PROT".to_owned(), "1".to_owned())];
    assert_eq!(Config::load(Some(&main), wrong).unwrap_err().code(), Code::ConfigUnknownKey);
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("muster.toml");
    write(&main, "");
    fs::set_permissions(&main, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(Config::load(Some(&main), []).unwrap_err().code(), Code::ConfigUnreadable);
    fs::remove_file(&main).unwrap();
    assert_eq!(Config::load(Some(&main), []).unwrap_err().code(), Code::ConfigUnreadable);
}

#[test]
fn the_settings_that_are_shipped_are_all_there_are_with_their_defaults() {
    let shipped = include_str!("../../../packaging/muster.toml");
    let is_setting = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let set: Vec<&str> = shipped
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line))
        .collect();
    let table: Table = set.join("\n").parse().unwrap();
    let mut named = Vec::new();
    for (section, value) in &table {
        match value.as_table() {
            Some(keys) => named.extend(keys.keys().map(|key| format!("{section}.{key}"))),
            None => named.push(section.clone()),
        }
    }
    let mut known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(named, known);
    // What has no default is shown by an example.
    let config = parse(&set.join("\n")).unwrap();
    let cleared = Config {
        endpoints: Vec::new(),
        allow: Vec::new(),
        makers: None,
        gateway_socket: None,
        blobs: BlobRoom::default(),
        health: None,
        names: None,
        ..config
    };
    assert_eq!(cleared, Config::default());
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn every_mistake_is_told_at_once_with_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("muster.toml");
    write(&main, "[network]\nprot = 1\nauth_port = 0\n[expose.ssh]\nport = 22\n");
    fs::create_dir(dir.path().join("muster.toml.d")).unwrap();
    write(&dir.path().join("muster.toml.d/10.toml"), "state_dir = '/s'\n\n[keys\n");
    let survey = Reading::of(Some(&main), []).survey();
    let found: Vec<_> = survey.problems.iter().map(|problem| problem.detail.as_str()).collect();
    let [exposed, port, key, syntax] = found[..] else { panic!("{found:?}") };
    assert!(
        exposed.contains("unknown setting expose.ssh.port, the nearest is expose.ACTION.to"),
        "{exposed}"
    );
    assert!(port.ends_with("muster.toml: network.auth_port takes a port, 1 to 65535"), "{port}");
    assert!(key.ends_with("unknown setting network.prot, the nearest is network.port"), "{key}");
    assert!(syntax.contains("10.toml: line 3: "), "{syntax}");
    assert_eq!(survey.files.len(), 2);
}

#[test]
fn each_setting_says_what_it_is_and_where_it_was_set() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("muster.toml");
    write(&main, "[network]\nport = 1\n[members]\nstale_after = '120s'\n[expose.ssh]\nto = '127.0.0.1:22'\n");
    let environment = [("MUSTER_NETWORK_ALLOW".to_owned(), "tcp/22, all".to_owned())];
    let survey = Reading::of(Some(&main), environment).survey();
    let of = |key: &str| {
        let set = survey.settings.iter().find(|set| set.key == key).unwrap();
        (set.value.clone(), set.from.clone())
    };
    let file = Some(main.display().to_string());
    assert_eq!(of("network.port"), (json!(1), file.clone()));
    assert_eq!(of("members.stale_after"), (json!("2m"), file.clone()));
    assert_eq!(of("network.allow"), (json!(["tcp/22", "all"]), Some("MUSTER_NETWORK_ALLOW".to_owned())));
    assert_eq!(of("expose.ssh.to"), (json!("127.0.0.1:22"), file));
    assert_eq!(of("health.listen"), (json!(null), None));
    assert_eq!(of("state_dir"), (json!("/var/lib/muster"), None));
    assert_eq!(survey.settings.len(), SETTINGS.len() + 2);
}

#[test]
fn what_is_shown_of_a_setting_sets_it() {
    for setting in SETTINGS {
        let shown = (setting.get)(&Config::default());
        if shown.is_null() {
            continue;
        }
        let value: toml::Value = serde_json::from_value(shown.clone()).unwrap();
        let mut config = Config::default();
        assert!((setting.set)(&mut config, given::Given::Toml(&value)).is_some(), "{} {shown}", setting.key);
        assert_eq!(config, Config::default(), "{}", setting.key);
    }
}
