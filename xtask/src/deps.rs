//! The law of dependencies: which crate may know which, and who alone may touch the outside.
//!
//! ARCHITECTURE.md states it for people; this is the same table for the machine. It reads
//! `cargo metadata --no-deps`, so it needs no network and no build.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::machine::{self, Failure};

/// Our crates and what each may depend on (dev-dependencies are free).
const LAW: &[(&str, &[&str])] = &[
    ("identity", &[]),
    ("conn-auth", &["identity"]),
    ("policy", &["identity"]),
    ("org-trust", &["policy", "identity"]),
    ("control", &["identity"]),
    ("overlay", &["identity"]),
    ("tpm-seal", &[]),
    ("journal", &["identity"]),
    ("boot-image", &["identity"]),
    ("attest", &["identity"]),
    ("muster-peer", &["control", "identity"]),
    ("diagnosis", &["org-trust", "identity"]),
    ("member-crdt", &["org-trust", "policy", "identity"]),
    ("transport", &["conn-auth", "org-trust", "identity"]),
    (
        "musterd",
        &[
            "overlay",
            "member-crdt",
            "policy",
            "transport",
            "control",
            "conn-auth",
            "org-trust",
            "attest",
            "tpm-seal",
            "journal",
            "muster-peer",
            "identity",
        ],
    ),
    ("muster-gateway", &["transport", "control", "journal", "identity"]),
    (
        "muster-preboot",
        &["transport", "conn-auth", "org-trust", "attest", "tpm-seal", "boot-image", "identity"],
    ),
    (
        "muster",
        &[
            "member-crdt",
            "policy",
            "transport",
            "control",
            "conn-auth",
            "org-trust",
            "diagnosis",
            "tpm-seal",
            "boot-image",
            "lab",
            "identity",
        ],
    ),
];

/// Ours, but outside the law: nothing in the product depends on them (`lab` serves one command of the CLI).
const OUTSIDE: &[&str] = &["lab", "muster-tests", "muster-sim", "muster-bench", "muster-fuzz", "xtask"];

/// Crates of others that only these of ours may name.
const ONLY: &[(&str, &[&str])] = &[
    ("automerge", &["member-crdt"]),
    ("boringtun", &["musterd"]),
    ("foca", &["overlay"]),
    ("tss-esapi", &["tpm-seal"]),
    // conn-auth: the seed's wire verifies as loosely as it was published.
    ("ed25519-dalek", &["identity", "conn-auth"]),
    ("tun-rs", &["musterd"]),
    ("age", &["muster"]),
    ("tokio", &["transport", "muster-peer", "musterd", "muster-gateway", "muster-preboot", "muster"]),
    ("rustls", &["transport", "muster-gateway"]),
    ("tokio-tungstenite", &["transport"]),
    ("rand", &["transport", "musterd", "muster-preboot", "muster"]),
];

/// Pure crates: no I/O, clock, randomness or threads, so none of these either.
const PURE: &[&str] = &[
    "identity",
    "conn-auth",
    "org-trust",
    "attest",
    "diagnosis",
    "control",
    "overlay",
    "policy",
    "member-crdt",
    "boot-image",
];
const IMPURE: &[&str] = &["tokio", "rand", "getrandom", "rustix", "libc", "tracing", "tempfile"];

/// Crates that say nothing by their name.
const NO_NAMES: &[&str] = &["common", "core", "util", "utils", "shared", "helpers"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

pub(crate) fn run() -> Result<(), Failure> {
    let output = machine::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|why| Failure::NotStarted("cargo metadata".to_owned(), why))?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|why| Failure::Found(format!("cargo metadata is not readable: {why}")))?;
    let mut broken = violations(&metadata);
    broken.extend(unmatched_profiles()?);
    if broken.is_empty() {
        println!("deps: {} packages keep the law", metadata.packages.len());
        Ok(())
    } else {
        Err(Failure::Found(format!("the law of dependencies is broken:\n  {}", broken.join("\n  "))))
    }
}

fn violations(metadata: &Metadata) -> Vec<String> {
    let law: BTreeMap<&str, &[&str]> = LAW.iter().copied().collect();
    let ours = |name: &str| law.contains_key(name) || OUTSIDE.contains(&name);
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if NO_NAMES.contains(&name) {
            broken.push(format!("{name}: a name that says nothing"));
        }
        if package.license.is_none() {
            broken.push(format!("{name}: no license in its manifest"));
        }
        if OUTSIDE.contains(&name) {
            continue;
        }
        let Some(allowed) = law.get(name) else {
            broken.push(format!("{name}: not in the law; add it to xtask/src/deps.rs and ARCHITECTURE.md"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev")) {
            let on = dependency.name.as_str();
            if ours(on) && !allowed.contains(&on) {
                broken.push(format!("{name} -> {on}: not allowed"));
            }
            if ONLY.iter().any(|(other, only)| *other == on && !only.contains(&name)) {
                broken.push(format!("{name} -> {on}: kept to other crates"));
            }
            if PURE.contains(&name) && IMPURE.contains(&on) {
                broken.push(format!("{name} -> {on}: the crate is pure"));
            }
        }
    }
    broken
}

/// A profile for a package that is not in the lock file is only a warning to cargo; here it is an error.
fn unmatched_profiles() -> Result<Vec<String>, Failure> {
    let read = |file: &str| -> Result<toml::Table, Failure> {
        let path = machine::root().join(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|why| Failure::Machine(format!("{} cannot be read: {why}", path.display())))?;
        text.parse().map_err(|why| Failure::Found(format!("{file} is not TOML: {why}")))
    };
    let (manifest, lock) = (read("Cargo.toml")?, read("Cargo.lock")?);
    let locked: Vec<&str> = lock
        .get("package")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|package| package.get("name")?.as_str())
        .collect();
    let profiles = manifest.get("profile").and_then(|p| p.get("dev")?.get("package")?.as_table());
    Ok(profiles
        .into_iter()
        .flat_map(toml::Table::keys)
        .filter(|name| *name != "*" && !locked.contains(&name.as_str()))
        .map(|name| format!("profile.dev.package.{name}: no such package"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, on: &[&str]) -> Metadata {
        let dependencies = on.iter().map(|d| Dependency { name: (*d).to_owned(), kind: None }).collect();
        Metadata {
            packages: vec![Package { name: name.to_owned(), license: Some("MIT".to_owned()), dependencies }],
        }
    }

    #[test]
    fn a_forbidden_edge_is_named() {
        assert_eq!(
            violations(&package("muster-preboot", &["member-crdt"])),
            ["muster-preboot -> member-crdt: not allowed"]
        );
        assert_eq!(
            violations(&package("musterd", &["tss-esapi"])),
            ["musterd -> tss-esapi: kept to other crates"]
        );
        assert!(
            violations(&package("overlay", &["tokio"]))
                .contains(&"overlay -> tokio: the crate is pure".to_owned())
        );
        assert_eq!(violations(&package("helpers", &[])).len(), 2);
        assert!(violations(&package("conn-auth", &["identity", "blake3"])).is_empty());
    }
}
