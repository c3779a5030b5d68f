//! Lines that depart from the format, and messages out of order: each is refused where it is read, by
//! the name of the field at which it departs.

use crate::{
    cases::{CLIENT, Message, SERVER, acceptor_only, dialler_only, public, replaced, tampered, tunnel},
    format::{Acceptor, Dialler, Vector, from_text, to_text},
};

pub(crate) fn all() -> Vec<Vector> {
    let lines = Lines::new();
    let mut out = Vec::new();
    hello(&lines, &mut out);
    hello_parameters(&lines, &mut out);
    challenge(&lines, &mut out);
    proof(&lines, &mut out);
    verdict(&lines, &mut out);
    out_of_order(&lines, &mut out);
    out
}

/// The four lines of one good handshake.
struct Lines {
    hello: String,
    challenge: String,
    proof: String,
    verdict: String,
}

impl Lines {
    fn new() -> Self {
        let (dialler, acceptor) = tampered(tunnel("sync"), Message::Hello, str::to_owned);
        Self {
            hello: dialler.hello.unwrap_or_default(),
            challenge: acceptor.challenge.unwrap_or_default(),
            proof: dialler.proof.unwrap_or_default(),
            verdict: acceptor.verdict.unwrap_or_default(),
        }
    }

    fn at_hello(&self, name: &str, line: &str, want: &str) -> Vector {
        let (_, acceptor) = tunnel("sync");
        let acceptor = Acceptor { hello: line.to_owned(), ..acceptor };
        acceptor_only(&format!("HELLO: {name}"), acceptor, &format!("hello malformed {want}"))
    }

    fn at_challenge(&self, name: &str, line: &str, want: &str) -> Vector {
        let (dialler, _) = tunnel("sync");
        let dialler = Dialler { challenge: Some(line.to_owned()), ..dialler };
        dialler_only(&format!("CHALLENGE: {name}"), dialler, &format!("challenge {want}"))
    }

    fn at_proof(&self, name: &str, line: &str, want: &str) -> Vector {
        let (_, acceptor) = tunnel("sync");
        let acceptor = Acceptor { hello: self.hello.clone(), proof: Some(line.to_owned()), ..acceptor };
        acceptor_only(&format!("PROOF: {name}"), acceptor, &format!("proof {want}"))
    }

    fn at_verdict(&self, name: &str, line: &str, want: &str) -> Vector {
        let (dialler, _) = tunnel("sync");
        let challenge = Some(self.challenge.clone());
        let dialler = Dialler { challenge, verdict: Some(line.to_owned()), ..dialler };
        dialler_only(&format!("VERDICT: {name}"), dialler, &format!("verdict {want}"))
    }
}

fn hello(lines: &Lines, out: &mut Vec<Vector>) {
    const FIELDS: [&str; 6] = ["version", "pubkey", "to", "nonce", "bind", "action"];
    let good = lines.hello.as_str();
    let mut refuse = |name: &str, line: &str, want: &str| out.push(lines.at_hello(name, line, want));
    for (name, line, at) in shuffled(good) {
        // A field too many is noticed where the next one should stand.
        let want = match FIELDS.get(at) {
            Some(field) => format!("{field} missing"),
            None => "parameters bad-word".to_owned(),
        };
        refuse(&name, &line, &want);
    }
    for (field, next) in [("pubkey", "to"), ("to", "nonce"), ("nonce", "bind")] {
        wrong_digits(good, field, next, &mut refuse);
    }
    refuse("empty line", "", "version missing");
    refuse("version 2", &replaced(good, "auth/1", "auth/2"), "version version");
    refuse("version 01", &replaced(good, "auth/1", "auth/01"), "version version");
    refuse("version 11", &replaced(good, "auth/1", "auth/11"), "version version");
    refuse("no version number", &replaced(good, "auth/1", "auth/"), "version version");
    refuse("another protocol", &replaced(good, "muster-auth", "Muster-auth"), "version missing");
    refuse("the first wire's", &format!("pubkey={} action=sync", public(CLIENT)), "version missing");
    refuse("an http request", "GET / HTTP/1.1", "version missing");
    refuse("binary", &to_text(&[0, 255, 10, 13, 128]), "version missing");
    refuse("a space in front", &format!(" {good}"), "version missing");
    refuse("a space at the end", &format!("{good} "), "parameters missing");
    refuse("two spaces", &replaced(good, " to=", "  to="), "to missing");
    refuse("a tab for a space", &replaced(good, " to=", "\tto="), "to missing");
    refuse("a tab behind the version", &replaced(good, " pubkey=", "\tpubkey="), "version version");
    refuse("a newline at the end", &format!("{good}\n"), "action bad-word");
    refuse("carriage return and newline", &format!("{good}\r\n"), "action bad-word");
    refuse("a zero byte at the end", &format!("{good}\0"), "action bad-word");
    refuse("a byte above ascii", &format!("{good}\u{e9}"), "action bad-word");
    refuse("to=ANY", &replaced(good, &format!("to={}", public(SERVER)), "to=ANY"), "to bad-hex");
    refuse("to=anyone", &replaced(good, &format!("to={}", public(SERVER)), "to=anyone"), "nonce missing");
    for bind in ["", "TLS", "wireguard", "local", "wg,tls"] {
        refuse(&format!("bind={bind}"), &replaced(good, "bind=wg", &format!("bind={bind}")), "bind bad-word");
    }
    for action in ["", "Sync", "sy_nc", "sync=1", &"a".repeat(33)] {
        let line = replaced(good, "action=sync", &format!("action={action}"));
        refuse(&format!("action={action}"), &line, "action bad-word");
    }
    let twice = replaced(good, "action=sync", "action=Sync A=1");
    refuse("a bad action in front of a bad parameter", &twice, "action bad-word");
    refuse("a key in a second name of a field", &replaced(good, " pubkey=", " key="), "pubkey missing");
    refuse("1025 bytes", &format!("{good} {}", padding(1025 - good.len() - 1)), "line too-many");
    refuse("1025 bytes of nothing", &"x".repeat(1025), "line too-many");
}

fn hello_parameters(lines: &Lines, out: &mut Vec<Vector>) {
    let mut refuse = |name: &str, parameters: &str, want: &str| {
        let line = format!("{} {parameters}", lines.hello);
        out.push(lines.at_hello(&format!("parameters {name}"), &line, &format!("parameters {want}")));
    };
    let seventeen: Vec<String> = (0..17).map(|i| format!("k{i:02}=v")).collect();
    refuse("17", &seventeen.join(" "), "too-many");
    refuse("unsorted", "b=1 a=2", "not-ascending");
    refuse("repeated", "a=1 a=2", "not-ascending");
    refuse("without equals sign", "a", "missing");
    refuse("with empty key", "=1", "bad-word");
    refuse("with capital key", "A=1", "bad-word");
    refuse("with a key of 33", &format!("{}=1", "a".repeat(33)), "bad-word");
    refuse("with a value of 257", &format!("a={}", "v".repeat(257)), "bad-word");
    refuse("with a tab in the value", "a=1\t2", "bad-word");
    refuse("with a DEL in the value", "a=\u{7f}", "bad-word");
    refuse("with a zero byte in the value", "a=1\0", "bad-word");
    refuse("with a newline in the value", "a=1\n", "bad-word");
    refuse("with a byte above ascii", "a=\u{fc}", "bad-word");
    refuse("with two spaces between", "a=1  b=2", "missing");
    refuse("with a space at the end", "a=1 ", "missing");
    for field in ["action", "bind", "nonce", "pubkey", "to"] {
        refuse(&format!("named {field}"), &format!("{field}=1"), "bad-word");
    }
}

fn challenge(lines: &Lines, out: &mut Vec<Vector>) {
    const FIELDS: [&str; 4] = ["version", "pubkey", "challenge", "sig"];
    let good = lines.challenge.as_str();
    let mut refuse = |name: &str, line: &str, want: &str| {
        out.push(lines.at_challenge(name, line, &format!("malformed {want}")));
    };
    for (name, line, at) in shuffled(good) {
        let want = match FIELDS.get(at) {
            Some(field) if line.len() <= good.len() => format!("{field} missing"),
            Some(_) | None => "line too-many".to_owned(),
        };
        refuse(&name, &line, &want);
    }
    for (field, next) in [("pubkey", "challenge"), ("challenge", "sig"), ("sig", "line")] {
        // One digit more is over the length of every CHALLENGE.
        wrong_digits(good, field, next, &mut |name, line, want| {
            refuse(name, line, if line.len() > good.len() { "line too-many" } else { want });
        });
    }
    refuse("empty line", "", "version missing");
    refuse("version 01", &replaced(good, "auth/1 ", "auth/01 ")[..good.len()], "version version");
    refuse("a newline at the end", &format!("{good}\n"), "line too-many");
    refuse("32 bytes, as the first wire sent", &to_text(&[0xc3; 32]), "version missing");
    refuse("a no with a code before the proof", "no ref=c0c1c2c3c4c5c6c7 code=MU-1403", "code bad-word");
    refuse("a no without a reference", "no ref=", "ref bad-hex");
    out.push(lines.at_challenge("a no", "no ref=c0c1c2c3c4c5c6c7", "refused"));
}

fn proof(lines: &Lines, out: &mut Vec<Vector>) {
    const FIELDS: [&str; 3] = ["heads", "count", "sig"];
    let good = lines.proof.as_str();
    let mut refuse = |name: &str, line: &str, want: &str| {
        out.push(lines.at_proof(name, line, &format!("malformed {want}")));
    };
    for (name, line, at) in shuffled(good) {
        let want = match FIELDS.get(at) {
            _ if line.len() > 230 => "line too-many".to_owned(),
            Some(field) => format!("{field} missing"),
            None => "line trailing".to_owned(),
        };
        refuse(&name, &line, &want);
    }
    for (field, next) in [("heads", "count"), ("sig", "line")] {
        wrong_digits(good, field, next, &mut refuse);
    }
    let number = |text: &str| replaced(good, "count=3", &format!("count={text}"));
    for text in ["", "00", "03", "+3", "-3", "3.0", "0x3", "18446744073709551616", "99999999999999999999"] {
        refuse(&format!("count={text}"), &number(text), "count bad-number");
    }
    refuse("count with a space", &number(" 3"), "count bad-number");
    refuse("empty line", "", "heads missing");
    refuse("a newline at the end", &format!("{good}\n"), "line trailing");
    refuse("carriage return and newline", &format!("{good}\r\n"), "line trailing");
    refuse("a space at the end", &format!("{good} "), "line trailing");
    refuse("a field behind", &format!("{good} a=1"), "line trailing");
    refuse("231 bytes", &format!("{good}{}", "x".repeat(231 - good.len())), "line too-many");
    refuse("the first wire's", &good[good.len() - 132..], "heads missing");
}

fn verdict(lines: &Lines, out: &mut Vec<Vector>) {
    let good = lines.verdict.as_str();
    let mut refuse = |name: &str, line: &str, want: &str| {
        out.push(lines.at_verdict(name, line, &format!("malformed {want}")));
    };
    refuse("empty line", "", "ref missing");
    refuse("OK", &replaced(good, "ok", "OK"), "ref missing");
    refuse("ok alone", "ok", "ref missing");
    refuse("ok without heads", "ok ref=c0c1c2c3c4c5c6c7", "heads missing");
    refuse("ok with a code", "ok ref=c0c1c2c3c4c5c6c7 code=MU-1403", "heads missing");
    refuse("a short reference", &replaced(good, "c6c7 ", "c6 "), "ref bad-hex");
    refuse("a long reference", &replaced(good, "c6c7 ", "c6c7c8 "), "heads missing");
    refuse("upper-case heads", &good.replacen("heads=9", "heads=F", 1), "heads bad-hex");
    refuse("count with a zero in front", &replaced(good, "count=4", "count=04"), "count bad-number");
    refuse("a field behind", &format!("{good} a=1"), "line trailing");
    refuse("122 bytes", &format!("{good}{}", "0".repeat(122 - good.len())), "line too-many");
    refuse("a newline at the end", &format!("{good}\n"), "count bad-number");
    for code in ["MU-403", "MU-01403", "MU-14O3", "1403"] {
        let want = if code == "1403" { "code missing" } else { "code bad-number" };
        refuse(&format!("code={code}"), &format!("no ref=c0c1c2c3c4c5c6c7 code={code}"), want);
    }
    refuse("no with heads", &replaced(good, "ok", "no"), "code missing");
    let unknown = "no ref=c0c1c2c3c4c5c6c7 code=MU-9999";
    out.push(lines.at_verdict("a code that nobody knows is none", unknown, "refused"));
    out.push(lines.at_verdict("a no without a code", &unknown[..23], "refused"));
}

fn out_of_order(lines: &Lines, out: &mut Vec<Vector>) {
    let Lines { hello, challenge, proof, verdict } = lines;
    out.push(lines.at_hello("a CHALLENGE in its place", challenge, "to missing"));
    out.push(lines.at_hello("a PROOF in its place", proof, "version missing"));
    out.push(lines.at_hello("a VERDICT in its place", verdict, "version missing"));
    out.push(lines.at_challenge("a HELLO in its place", hello, "malformed challenge missing"));
    out.push(lines.at_challenge("a PROOF in its place", proof, "malformed version missing"));
    out.push(lines.at_challenge("a VERDICT in its place", verdict, "malformed version missing"));
    out.push(lines.at_proof("a second HELLO in its place", hello, "malformed line too-many"));
    out.push(lines.at_proof("a CHALLENGE in its place", challenge, "malformed line too-many"));
    out.push(lines.at_proof("a VERDICT in its place", verdict, "malformed heads missing"));
    out.push(lines.at_verdict("a HELLO in its place", hello, "malformed line too-many"));
    out.push(lines.at_verdict("a second CHALLENGE in its place", challenge, "malformed line too-many"));
    out.push(lines.at_verdict("a PROOF in its place", proof, "malformed line too-many"));
}

/// Every field missing, doubled, and exchanged with the next; with the index of the field at which a
/// reader stops.
fn shuffled(line: &str) -> Vec<(String, String, usize)> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut out = Vec::new();
    for (i, word) in words.iter().enumerate() {
        let name = word.split(['=', '/']).next().unwrap_or_default();
        let mut missing = words.clone();
        missing.remove(i);
        out.push((format!("no {name}"), missing.join(" "), i));
        let mut doubled = words.clone();
        doubled.insert(i, word);
        out.push((format!("two {name}"), doubled.join(" "), i + 1));
        if i + 1 < words.len() {
            let mut exchanged = words.clone();
            exchanged.swap(i, i + 1);
            out.push((format!("{name} behind the next"), exchanged.join(" "), i));
        }
    }
    out
}

/// The digits of one field in capitals, one too few, one too many, none, and one that is none.
fn wrong_digits(line: &str, field: &str, next: &str, refuse: &mut dyn FnMut(&str, &str, &str)) {
    let start = line.find(&format!("{field}=")).unwrap_or_default() + field.len() + 1;
    let length = line[start..].find(' ').unwrap_or(line.len() - start);
    let (head, digits, tail) = (&line[..start], &line[start..start + length], &line[start + length..]);
    let bad = format!("{field} bad-hex");
    let more = if next == "line" { "line trailing".to_owned() } else { format!("{next} missing") };
    refuse(
        &format!("{field} in capitals"),
        &format!("{head}{}{tail}", digits.replace('a', "A").to_uppercase()),
        &bad,
    );
    refuse(&format!("{field} one digit short"), &format!("{head}{}{tail}", &digits[1..]), &bad);
    refuse(&format!("{field} one digit long"), &format!("{head}{digits}0{tail}"), &more);
    refuse(&format!("{field} empty"), &format!("{head}{tail}"), &bad);
    refuse(&format!("{field} with a g"), &format!("{head}g{}{tail}", &digits[1..]), &bad);
    assert_eq!(from_text(line).len(), line.len());
}

/// Parameters of this many bytes.
fn padding(length: usize) -> String {
    let mut out = String::new();
    let mut key = b'a';
    while out.len() < length {
        let room = length - out.len() - usize::from(!out.is_empty());
        if !out.is_empty() {
            out.push(' ');
        }
        out.push(char::from(key));
        out.push('=');
        out.push_str(&"v".repeat(room.saturating_sub(2).min(256)));
        key += 1;
    }
    out
}
