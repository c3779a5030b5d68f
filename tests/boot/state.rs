//! The disk with a machine's state, looked at and changed while the machine is off.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use lab::vm::Vm;

/// Every file under `muster/`, where keys, settings and the admission are, but for what is on its way to musterd.
pub(crate) fn kept(vm: &Vm) -> BTreeMap<String, Vec<u8>> {
    settle(vm);
    let to = vm.dir().join("kept");
    fs::create_dir_all(&to).unwrap();
    ask(vm, &format!("rdump muster {}", to.display()));
    let mut files = BTreeMap::new();
    gather(&to, "", &mut files);
    fs::remove_dir_all(&to).unwrap();
    files.retain(|name, _| !name.starts_with("handover/"));
    files
}

/// One file; nothing when it is not there.
pub(crate) fn read(vm: &Vm, path: &str) -> Option<Vec<u8>> {
    kept(vm).remove(path.strip_prefix("muster/").unwrap())
}

/// Puts a file there, in the place of any other.
pub(crate) fn write(vm: &Vm, path: &str, content: &[u8]) {
    let from = vm.dir().join("content");
    fs::write(&from, content).unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
    settle(vm);
    ask(vm, &format!("rm {path}"));
    ask(vm, &format!("write {} {path}", from.display()));
}

/// Takes a file away.
pub(crate) fn remove(vm: &Vm, path: &str) {
    settle(vm);
    ask(vm, &format!("rm {path}"));
}

/// Another disk like it, as it is now.
pub(crate) fn copy(vm: &Vm, name: &str) -> PathBuf {
    let to = vm.dir().join(name);
    copied(&vm.state_disk(), &to);
    to
}

/// Puts what [`copy`] made in its place.
pub(crate) fn restore(vm: &Vm, copy: &Path) {
    copied(copy, &vm.state_disk());
}

fn copied(from: &Path, to: &Path) {
    // It lies in memory, and most of it is nothing.
    let done = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// The power was cut: what its journal still holds would undo what is written here.
fn settle(vm: &Vm) {
    let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(vm.state_disk()).output().unwrap();
    assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
}

fn ask(vm: &Vm, order: &str) {
    let done = Command::new("debugfs").args(["-w", "-R", order]).arg(vm.state_disk()).output().unwrap();
    assert!(done.status.success(), "{order}");
}

fn gather(dir: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{below}{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            // The directory that was asked for counts for nothing in a name.
            let inner = if below.is_empty() && name == "muster" { String::new() } else { format!("{name}/") };
            gather(&path, &inner, files);
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}
