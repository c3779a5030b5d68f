//! BI of an invite, as the line that somebody gives to `muster join`. What only a gateway can know of one
//! (unknown, used up, cancelled, expired, another's) is in `front`.

use std::time::Duration;

use identity::{Code, HashContext};
use lab::org::Org;

use super::Believed;
use crate::harness;

const PREFIX: &str = "muster-invite-1:";
/// Of the line's digits this many, evenly spread, are lost or changed.
const SAMPLES: usize = 60;

#[test]
fn a_bad_invite_makes_no_member_and_no_keys() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let mut org = harness::org(sandbox, 2, 1);
        let line = org.invite(0, 1).unwrap();
        let believed = Believed::of(&org);
        let mut wrong = Vec::new();
        for (name, given, want) in catalogue(line.trim()) {
            let got = join(&org, given);
            if got != want.to_string() {
                wrong.push(format!("{name}: {want} wanted, {got} got"));
            }
            assert!(!org.state(1).unwrap().join("keys").exists(), "{name}: keys were made");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(Believed::of(&org), believed);
        // The good one was not spent by any of it; white space around it and in it is mended.
        let (head, tail) = line.trim().split_at(100);
        let wrapped = format!("  {head}\r\n   {tail}\r\n");
        org.enrol(1, &wrapped).unwrap().ok().unwrap();
        org.start_musterd(1).unwrap();
        harness::know_each_other(&org, 2);
    })
}

fn join(org: &Org, given: Vec<u8>) -> String {
    let join = org.program(1, "muster").unwrap().args(["join", "-", "--no-start", "--name", "n2"]);
    let ended = join.input(given).run(Duration::from_secs(30)).unwrap();
    assert!(!ended.status.success());
    harness::code(&ended)
}

fn catalogue(line: &str) -> Vec<(&'static str, Vec<u8>, Code)> {
    let digits = line.strip_prefix(PREFIX).unwrap();
    let payload = {
        let whole = read_base64url(digits);
        whole[..whole.len() - 8].to_vec()
    };
    let made_anew = |bytes: &[u8]| {
        let sum = HashContext::INVITE_CHECKSUM.hash(&[bytes]);
        format!("{PREFIX}{}", base64url(&[bytes, &sum[..8]].concat())).into_bytes()
    };
    let changed = |at: usize| {
        let mut bytes = payload.clone();
        bytes[at] ^= 1;
        made_anew(&bytes)
    };
    let last = payload.len() - 1;
    let text = |text: &str| text.as_bytes().to_vec();
    let lost = Code::InviteMalformed;
    let mut cases = vec![
        ("BI-invite-empty", vec![], lost),
        ("BI-invite-not-utf-8", vec![0xff; 60], lost),
        ("BI-invite-nul", format!("{line}\0").into_bytes(), lost),
        ("BI-invite-byte-order-mark", format!("\u{feff}{line}").into_bytes(), lost),
        ("BI-invite-right-to-left-mark", format!("\u{202e}{line}").into_bytes(), lost),
        ("BI-invite-json", text("{\"org\":\"demo\",\"org\":\"demo\",\"uses\":1e400}"), lost),
        ("BI-invite-json-nested-ten-thousand-deep", text(&"[".repeat(10_000)), lost),
        ("BI-invite-10-MiB", vec![b'A'; 10 << 20], lost),
        ("BI-invite-line-of-10-MiB", format!("{PREFIX}{}", "A".repeat(10 << 20)).into_bytes(), lost),
        ("BI-invite-unknown-version", text(&line.replacen("invite-1", "invite-2", 1)), lost),
        ("BI-invite-without-its-beginning", text(digits), lost),
        ("BI-invite-nothing-behind-its-beginning", text(PREFIX), lost),
        ("BI-invite-twice", format!("{line}{line}").into_bytes(), lost),
        ("BI-invite-two-lines", format!("{line}\n{line}").into_bytes(), lost),
        ("BI-invite-trailing-bytes", format!("{line}AAAA").into_bytes(), lost),
        ("BI-invite-padding", format!("{line}====").into_bytes(), lost),
        ("BI-invite-unknown-format", changed(0), lost),
        ("BI-invite-cut-and-made-anew", made_anew(&payload[..last]), lost),
        ("BI-invite-lengthened-and-made-anew", made_anew(&[&payload[..], &[0]].concat()), lost),
        ("BI-invite-of-no-bytes-made-anew", made_anew(&[]), lost),
        ("BI-invite-another-orgs-id", changed(10), Code::InviteBroken),
        ("BI-invite-another-secret", changed(last), Code::InviteBroken),
        // In the statement, before the secret: its author's signature.
        ("BI-invite-statement-changed", changed(last - 40), Code::InviteBroken),
        // In the first charter, behind its frame: the org's name.
        ("BI-invite-charter-changed", changed(60), Code::InviteBroken),
    ];
    let step = digits.len() / SAMPLES;
    for at in (0..digits.len()).step_by(step) {
        cases.push(("BI-invite-truncated", format!("{PREFIX}{}", &digits[..at]).into_bytes(), lost));
        let mut bytes = format!("{PREFIX}{digits}").into_bytes();
        let digit = &mut bytes[PREFIX.len() + at];
        *digit = if *digit == b'A' { b'B' } else { b'A' };
        cases.push(("BI-invite-flipped", bytes, lost));
    }
    cases
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn read_base64url(text: &str) -> Vec<u8> {
    let values = text.bytes().map(|byte| DIGITS.iter().position(|&c| c == byte).unwrap());
    let bits: Vec<usize> = values.flat_map(|value| (0..6).rev().map(move |bit| value >> bit & 1)).collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |value, &bit| value << 1 | u8::from(bit == 1)))
        .collect()
}

fn base64url(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    bits.chunks(6)
        .map(|six| {
            let value = (0..6).fold(0, |value, at| value << 1 | usize::from(six.get(at) == Some(&1)));
            char::from(DIGITS[value])
        })
        .collect()
}
