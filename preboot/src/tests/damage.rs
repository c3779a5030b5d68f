//! What is damaged on the disk is named and left as it is.

use std::{collections::BTreeMap, fs, path::Path};

use identity::Code;
use rcgen::KeyPair;

use super::bench::*;

/// Every file below a directory.
fn tree(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Cut at some places, with a bit changed at some, and with a byte more.
fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
    let places = (0..bytes.len()).step_by(bytes.len() / 16 + 1);
    let cut = places.clone().map(|at| bytes[..at].to_vec());
    let flipped = places.map(|at| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    cut.chain(flipped).chain([[bytes, b"x"].concat()]).collect()
}

#[tokio::test]
async fn what_is_pinned_and_damaged_is_named_and_stays_as_it_is() {
    local(async |bench| {
        bench.join().await.unwrap();
        let whole = tree(bench.state.path());
        let file = |name: &str| bench.state.path().join("preboot").join(name);
        let mut rows: Vec<(&str, Vec<u8>, Code)> = Vec::new();
        for name in ["charters", "admit"] {
            let bytes = fs::read(file(name)).unwrap();
            rows.extend(damaged(&bytes).into_iter().map(|bytes| (name, bytes, Code::HandoverRejected)));
        }
        let pem = fs::read_to_string(file("bundle.pem")).unwrap();
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        for (text, code) in [
            ("", Code::BundleEmpty),
            ("junk", Code::BundleInvalid),
            (&pem[..pem.len() / 2], Code::BundleJunk),
            (&format!("{pem}{key}"), Code::BundlePrivateKey),
        ] {
            rows.push(("bundle.pem", text.as_bytes().to_vec(), code));
        }
        rows.push(("gateways", vec![0xff], Code::HandoverRejected));
        for text in ["", "http://127.0.0.1:1\n", "127.0.0.1:0\n", "127.0.0.1:70000\n"] {
            rows.push(("gateways", text.as_bytes().to_vec(), Code::InviteBroken));
        }
        for (name, bytes, code) in rows {
            fs::write(file(name), &bytes).unwrap();
            let before = tree(bench.state.path());
            let failure = bench.run(&[]).await.unwrap_err();
            assert_eq!(failure.code, code, "{name}, {} bytes: {failure}", bytes.len());
            assert_eq!(tree(bench.state.path()), before, "{name}: something was written");
            fs::write(file(name), &whole[&file(name)]).unwrap();
        }
        bench.run(&[]).await.unwrap();
        assert_eq!(bench.held.borrow().asked, 1);
    })
    .await;
}

#[tokio::test]
async fn a_boot_key_that_is_damaged_or_another_object_is_named_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut tpm = lab::Swtpm::start(&dir.path().join("one")).unwrap();
    local(async |bench| {
        let invite = bench.invite.to_str().unwrap().to_owned();
        bench.boot(&tpm, b"image", &["--invite", &invite]).await.unwrap();
        let path = bench.keys_directory().join("boot.sealed");
        let good = fs::read(&path).unwrap();
        let node = fs::read(path.with_file_name("node.sealed")).unwrap();
        let rows = damaged(&good).into_iter().map(|bytes| (bytes, Code::SealedKeyDamaged));
        // What musterd opens is nothing for preboot, under whatever name.
        for (bytes, code) in rows.chain([(node, Code::ImageNotApproved)]) {
            fs::write(&path, &bytes).unwrap();
            let before = tree(bench.state.path());
            tpm.power_cycle().unwrap();
            let failure = bench.boot(&tpm, b"image", &["--invite", &invite]).await.unwrap_err();
            assert_eq!(failure.code, code, "{} bytes: {failure}", bytes.len());
            assert_eq!(tree(bench.state.path()), before, "something was written");
        }
        fs::write(&path, good).unwrap();
        let away = bench.state.path().join("away");
        fs::rename(&path, &away).unwrap();
        tpm.power_cycle().unwrap();
        let failure = bench.boot(&tpm, b"image", &["--invite", &invite]).await.unwrap_err();
        assert_eq!((failure.code, path.exists()), (Code::KeysMissing, false));
        fs::rename(&away, &path).unwrap();
        tpm.power_cycle().unwrap();
        bench.boot(&tpm, b"image", &[]).await.unwrap();
        assert_eq!(bench.held.borrow().asked, 1);
    })
    .await;
}

#[tokio::test]
async fn an_invite_that_is_damaged_makes_nothing() {
    local(async |bench| {
        let line = fs::read(&bench.invite).unwrap();
        let bodies = [b"\xef\xbb\xbf".as_slice(), b"\0", b"\xff\xfe"].map(|head| [head, &line].concat());
        for bytes in damaged(line.trim_ascii()).into_iter().chain(bodies) {
            fs::write(&bench.invite, &bytes).unwrap();
            let failure = bench.join().await.unwrap_err();
            assert_eq!(failure.code.number() / 1000, 3, "{} bytes: {failure}", bytes.len());
            assert!(tree(bench.state.path()).is_empty(), "something was made");
        }
        fs::write(&bench.invite, line).unwrap();
        bench.join().await.unwrap();
    })
    .await;
}
