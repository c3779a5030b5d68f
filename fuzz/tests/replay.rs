//! The committed corpora and what lies next to them: every entry as it is, cut short, and with bits
//! flipped. What a fuzzer once found stays found.

#![cfg(test)]

use std::{fs, path::PathBuf};

use muster_fuzz::TARGETS;

macro_rules! replayed {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

#[cfg(not(feature = "seed-wire"))]
replayed! {
    approvals batch blob bundle challenge charter config control dhcp disk_token enrol gateway gateway_config
    gateway_request generation handover hello http_answer http_request image initramfs invite outline packet
    pins policy proof proxy_header reply report request sealed_blob statement store stream swim sync tls_files
    tpm_certificate tpm_key tpm_quote verdict
}

#[cfg(feature = "seed-wire")]
replayed! {
    approvals batch blob bundle challenge charter config control dhcp disk_token enrol gateway gateway_config
    gateway_request generation handover hello http_answer http_request image initramfs invite outline packet
    pins policy proof proxy_header reply report request sealed_blob seed_wire statement store stream swim sync
    tls_files tpm_certificate tpm_key tpm_quote verdict
}

#[test]
fn every_target_is_replayed_and_every_corpus_has_a_target() {
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, REPLAYED);
    let mut folders: Vec<String> = fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    folders.retain(|name| cfg!(feature = "seed-wire") || name != "seed_wire");
    assert_eq!(folders, targets);
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(corpus().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!((1..=FILES_MAX).contains(&files.len()), "{} files", files.len());
    for file in files {
        let entry = fs::read(&file).unwrap();
        assert!(entry.len() <= FILE_BYTES_MAX, "{}: {} bytes", file.display(), entry.len());
        let shown = Shown(file);
        target(&entry);
        // Far apart in a long entry, everywhere in a short one.
        let step = entry.len().div_ceil(NEIGHBOURS_MAX).max(1);
        for at in (0..entry.len()).step_by(step) {
            target(&entry[..at]);
            let mut flipped = entry.clone();
            flipped[at] ^= 1 << (at / step % 8);
            target(&flipped);
        }
        drop(shown);
    }
}

/// Names the entry at which a target panicked.
struct Shown(PathBuf);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {} or a neighbour of it", self.0.display());
        }
    }
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

const FILES_MAX: usize = 40;
/// A dialogue of sync takes some KiB; everything else stays near one.
const FILE_BYTES_MAX: usize = 6 * 1024;
const NEIGHBOURS_MAX: usize = 100;
