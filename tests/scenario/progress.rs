//! Long work shows how far it is to whoever sits at a terminal, and to nobody else.

use std::time::Duration;

use lab::{Ended, Program, org::Org};

use crate::{harness, images};

const PATIENCE: Duration = Duration::from_secs(60);

/// `muster` of a machine behind a terminal, which `script` makes; its stdout is what that showed.
fn at_a_terminal(org: &Org, node: usize, line: &str, env: &[(&str, &str)]) -> Ended {
    let muster = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("muster");
    let line = format!("{} {line}", muster.display());
    let host = org.host(node).unwrap();
    let script = Program::new("script").args(["-qec", &line, "/dev/null"]).in_namespace(host.name());
    let script =
        script.env("TERM", "xterm").env("NO_COLOR", "").env("MUSTER_PASSPHRASE", lab::org::PASSPHRASE);
    let settings = lab::org::environment(host.dir()).into_iter();
    let script = settings.fold(script, |script, (name, value)| script.env(name, value));
    env.iter().fold(script, |script, (name, value)| script.env(name, value)).run(PATIENCE).unwrap()
}

/// Whether a line was drawn that can be drawn anew.
fn has_bar(text: &str) -> bool {
    text.contains(" [") && text.contains('\r')
}

#[test]
fn waiting_for_members_shows_a_bar_at_a_terminal_and_nowhere_else() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 3, 3);
        org.lab().isolate(&["n2"]).unwrap();
        let shown = at_a_terminal(&org, 0, "revoke n3 --timeout 2s --yes", &[]).stdout;
        assert!(shown.contains("applied by [") && shown.contains("1/2"), "{shown:?}");
        // It is gone from the screen when the answer comes.
        let (_, after) = shown.rsplit_once("\u{1b}[2K").unwrap();
        assert!(after.contains("applied 1/2") && !has_bar(after), "{after:?}");

        for (role, more, env) in
            [("a", "", ("NO_COLOR", "1")), ("b", "--no-input", ("", "")), ("c", "", ("TERM", "dumb"))]
        {
            let env: Vec<_> = [env].into_iter().filter(|(name, _)| !name.is_empty()).collect();
            let shown =
                at_a_terminal(&org, 0, &format!("member role n2 add {role} --timeout 2s {more}"), &env)
                    .stdout;
            assert!(shown.contains("applied 1/2") && !shown.contains("applied by ["), "{shown:?}");
        }
        for form in ["table", "json"] {
            let piped = org
                .muster(0, &["member", "label", "n2", "add", form, "--timeout", "2s", "-o", form])
                .unwrap();
            assert_eq!(piped.status.code(), Some(75));
            assert!(!has_bar(&piped.stderr) && !has_bar(&piped.stdout), "{piped:?}");
        }
    })
}

#[test]
fn an_image_on_its_way_shows_a_bar_at_a_terminal_and_nowhere_else() -> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = harness::org(sandbox, 2, 2);
        let (_, hash) = images::publish(&org, 0, images::LONG);
        let out = |name: &str| org.host(1).unwrap().dir().join(name).display().to_string();
        let line = format!("image get {hash} --from n1 --out {}", out("seen"));
        let shown = at_a_terminal(&org, 1, &line, &[]).stdout;
        assert!(shown.contains("n1 [") && shown.contains("of 20.00 MiB"), "{shown:?}");
        let piped = org.muster(1, &["image", "get", &hash, "--from", "n1", "--out", &out("quiet")]).unwrap();
        assert_eq!(piped.clone().ok().unwrap().stderr, "", "{piped:?}");
    })
}
