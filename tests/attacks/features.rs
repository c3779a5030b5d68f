//! The first handshake is in no program that is built from this workspace.

use std::process::Command;

#[test]
fn a_build_of_the_workspace_carries_no_first_handshake() {
    let tree = |features: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--workspace", "--edges", "features,normal", "--invert", "conn-auth"])
            .args(features)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!tree(&[]).contains("seed-wire"));
    // The question is one that can be answered yes.
    assert!(tree(&["--features", "muster-tests/seed-wire"]).contains("conn-auth feature \"seed-wire\""));
}
