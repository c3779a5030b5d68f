//! Images, before anything boots them.

use crate::images;

#[test]
fn the_same_inputs_give_the_same_images_and_what_is_pinned_can_be_looked_at() -> Result<(), lab::SandboxError>
{
    lab::test(|sandbox| {
        let org = images::org(sandbox, 1);
        let dir = images::dir(&org);
        let line = dir.join("invite");
        std::fs::write(&line, org.invite(0, 1).unwrap()).unwrap();
        let mut made = Vec::new();
        for name in ["one", "two"] {
            let out = dir.join(name);
            std::fs::create_dir(&out).unwrap();
            let uki = out.join("preboot.efi");
            let (uki, line) = (uki.to_str().unwrap(), line.to_str().unwrap());
            let program = org.program(0, "muster").unwrap().env("SOURCE_DATE_EPOCH", "1790000000");
            let program = program.args(["image", "preboot", "--invite", line, "--out", uki]);
            program.run(images::BOOT).unwrap().ok().unwrap();
            let shown = images::image(&org, &["verify", uki]);
            assert_eq!(shown["org"]["name"], "demo");
            assert_eq!(shown["invite"]["uses"], 1);
            assert_eq!(shown["built_unix_s"], 1_790_000_000_u64);
            let node = images::node(&org, &out, 1);
            made.push((std::fs::read(uki).unwrap(), shown["pcr11"].clone(), node["blake3"].clone()));
        }
        assert!(made[0] == made[1], "{:?} {:?}", (&made[0].1, &made[0].2), (&made[1].1, &made[1].2));
    })
}

#[test]
fn an_invite_that_lets_in_whoever_has_the_image_is_refused_and_so_is_what_is_no_image()
-> Result<(), lab::SandboxError> {
    lab::test(|sandbox| {
        let org = images::org(sandbox, 1);
        let dir = images::dir(&org);
        let (line, out) = (dir.join("invite"), dir.join("preboot.efi"));
        std::fs::write(&line, org.invite(0, 2).unwrap()).unwrap();
        let (line, out) = (line.to_str().unwrap(), out.to_str().unwrap());
        let refused = |arguments: &[&str], code: &str| {
            let ended = org.muster(0, &[&["image"], arguments].concat()).unwrap();
            assert!(ended.stderr.contains(code), "{arguments:?}: {}", ended.stderr);
        };
        refused(&["preboot", "--invite", line, "--out", out], "MU-8010");
        refused(&["preboot", "--kernel", "/nowhere", "--out", out], "MU-7006");
        refused(&["preboot", "--stub", line, "--out", out], "MU-8009");
        refused(&["verify", line], "MU-8009");
        assert!(!std::path::Path::new(out).exists());
    })
}
