use std::{cell::RefCell, rc::Rc};

use super::*;

const ORG: OrgId = OrgId([8; 32]);

/// What survives of unsynced bytes when the machine stops.
#[derive(Clone, Copy, Debug)]
enum Survives {
    All,
    Half,
    /// The file has grown but its new blocks were not written.
    Zeros,
    Nothing,
}

/// A disk with a page cache, that stops or fails at a chosen operation.
#[derive(Debug, Default)]
struct Machine {
    members: Option<Vec<u8>>,
    durable: Option<Vec<u8>>,
    new: Option<Vec<u8>>,
    new_durable: bool,
    renamed: bool,
    acknowledged: Option<Vec<u8>>,
    operations: usize,
    stop_at: Option<usize>,
    fail_at: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct TestDisk(Rc<RefCell<Machine>>);

impl TestDisk {
    fn step<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> io::Result<T> {
        let mut machine = self.0.borrow_mut();
        let number = machine.operations;
        machine.operations += 1;
        if machine.stop_at.is_some_and(|stop| number > stop) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if machine.fail_at == Some(number) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(act(&mut machine))
    }

    /// The machine stops: what was not synced survives as `survives` says, a rename that was not
    /// synced as `renamed` says.
    fn restart(&self, survives: Survives, keeps_rename: bool) -> Self {
        let machine = self.0.borrow();
        let old = machine.durable.clone();
        let mut members =
            if machine.renamed && !keeps_rename { old.clone() } else { machine.members.clone() };
        let length = old.as_ref().map_or(0, Vec::len);
        if let Some(bytes) = members.as_mut().filter(|bytes| !machine.renamed && bytes.len() > length) {
            let added = bytes.len() - length;
            match survives {
                Survives::All => {}
                Survives::Half => bytes.truncate(length + added / 2),
                Survives::Zeros => bytes[length..].fill(0),
                Survives::Nothing => bytes.truncate(length),
            }
        }
        Self(Rc::new(RefCell::new(Machine {
            durable: members.clone(),
            members,
            acknowledged: machine.acknowledged.clone(),
            ..Machine::default()
        })))
    }
}

impl Disk for TestDisk {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().members.clone())
    }
    fn read_acknowledged(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().acknowledged.clone())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(|machine| {
            let file = machine.members.get_or_insert_default();
            assert_eq!(file.len() as u64, offset, "appends only");
            file.extend_from_slice(bytes);
        })
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.step(|machine| {
            machine.members.get_or_insert_default().truncate(usize::try_from(length).unwrap());
        })
    }
    fn sync(&mut self) -> io::Result<()> {
        self.step(|machine| machine.durable = machine.members.clone())
    }
    fn write_new(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(|machine| {
            machine.new = Some(bytes.to_vec());
            machine.new_durable = false;
        })
    }
    fn sync_new(&mut self) -> io::Result<()> {
        self.step(|machine| machine.new_durable = true)
    }
    fn rename_new(&mut self) -> io::Result<()> {
        self.step(|machine| {
            assert!(machine.new_durable, "a file is synced before it takes the old one's place");
            machine.members = machine.new.take();
            machine.renamed = true;
        })
    }
    fn sync_directory(&mut self) -> io::Result<()> {
        self.step(|machine| {
            machine.durable = machine.members.clone();
            machine.renamed = false;
        })
    }
    fn write_acknowledged(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.step(|machine| machine.acknowledged = Some(bytes.to_vec()))
    }
}

/// Writes records 1, 2, 3.. with a replacement after the third; returns those acknowledged.
fn write_some(disk: &TestDisk) -> Vec<u8> {
    let Ok((mut store, contents)) = Store::open(disk.clone()) else { return Vec::new() };
    let mut document = contents.document;
    let mut acknowledged = Vec::new();
    for record in 1..=6 {
        document.push(record);
        let written = if store.wants_replacing() || record == 4 {
            store.replace(&ORG, &document)
        } else {
            store.append(&[record])
        };
        if written.is_ok() {
            acknowledged.clone_from(&document);
        }
    }
    acknowledged
}

#[test]
fn a_kill_at_any_operation_leaves_a_store_that_opens_with_every_acknowledged_record() {
    let whole = TestDisk::default();
    assert_eq!(write_some(&whole), [1, 2, 3, 4, 5, 6]);
    let operations = whole.0.borrow().operations;
    assert!(operations > 15);
    for stop in 0..operations {
        for survives in [Survives::All, Survives::Half, Survives::Zeros, Survives::Nothing] {
            for keeps_rename in [true, false] {
                let disk = TestDisk::default();
                disk.0.borrow_mut().stop_at = Some(stop);
                let acknowledged = write_some(&disk);
                let after = disk.restart(survives, keeps_rename);
                let (store, contents) = Store::open(after.clone()).unwrap();
                drop(store);
                let at = format!("stop {stop} {survives:?} rename {keeps_rename}");
                assert!(contents.document.starts_with(&acknowledged), "{at}: {contents:?} {acknowledged:?}");
                assert!([1, 2, 3, 4, 5, 6].starts_with(&contents.document), "{at}: {contents:?}");
                // And it can be written on.
                let (mut store, _) = Store::open(after.clone()).unwrap();
                let more =
                    if store.wants_replacing() { store.replace(&ORG, &[9]) } else { store.append(&[9]) };
                more.unwrap();
                let (_, contents) = Store::open(after.restart(Survives::Nothing, false)).unwrap();
                assert_eq!(contents.document.last(), Some(&9), "{at}");
            }
        }
    }
}

#[test]
fn a_disk_that_refuses_once_loses_nothing_it_acknowledged_and_heals_by_a_whole_file() {
    let whole = TestDisk::default();
    write_some(&whole);
    let operations = whole.0.borrow().operations;
    for fail in 0..operations {
        let disk = TestDisk::default();
        disk.0.borrow_mut().fail_at = Some(fail);
        let acknowledged = write_some(&disk);
        let refused_last = acknowledged == [1, 2, 3, 4, 5];
        assert!(refused_last || acknowledged == [1, 2, 3, 4, 5, 6], "the next write heals {fail}");
        if refused_last {
            continue;
        }
        let (_, contents) = Store::open(disk.restart(Survives::Nothing, false)).unwrap();
        assert_eq!(contents.document, acknowledged, "failure at {fail}");
    }
}

#[test]
fn what_a_newer_release_wrote_is_refused_and_left_alone() {
    let disk = TestDisk::default();
    write_some(&disk);
    let mut newer = disk.0.borrow().members.clone().unwrap();
    newer[b"muster members ".len()] = b'2';
    disk.0.borrow_mut().members = Some(newer.clone());
    let refused = Store::open(disk.clone()).unwrap_err();
    assert!(matches!(refused, StoreError::Newer(2)), "{refused}");
    assert_eq!(refused.code(), Code::StoreNewer);
    assert_eq!(disk.0.borrow().members, Some(newer));
}

#[test]
fn damage_in_what_was_acknowledged_is_an_error_and_changes_nothing() {
    let disk = TestDisk::default();
    write_some(&disk);
    let bytes = disk.0.borrow().members.clone().unwrap();
    for at in 0..bytes.len() {
        let damaged = TestDisk::default();
        let mut copy = bytes.clone();
        copy[at] ^= 1;
        {
            let mut machine = damaged.0.borrow_mut();
            machine.members = Some(copy.clone());
            machine.acknowledged.clone_from(&disk.0.borrow().acknowledged);
        }
        let opened = Store::open(damaged.clone());
        assert!(matches!(opened, Err(StoreError::Damaged { .. })), "byte {at}: {opened:?}");
        assert_eq!(damaged.0.borrow().members, Some(copy), "byte {at}");
    }
    let cut = TestDisk::default();
    cut.0.borrow_mut().members = Some(bytes[..bytes.len() - 1].to_vec());
    cut.0.borrow_mut().acknowledged.clone_from(&disk.0.borrow().acknowledged);
    assert_eq!(Store::open(cut).unwrap_err().code(), Code::StoreDamaged);
}

#[test]
fn a_directory_belongs_to_one_process_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (mut store, contents) = Store::open(DirectoryDisk::open(&path).unwrap()).unwrap();
    assert_eq!(contents, Contents::default());
    assert_eq!(DirectoryDisk::open(&path).unwrap_err().code(), Code::StoreInUse);
    assert!(store.wants_replacing());
    store.replace(&ORG, b"one").unwrap();
    store.append(b"two").unwrap();
    drop(store);
    let (mut store, contents) = Store::open(DirectoryDisk::open(&path).unwrap()).unwrap();
    assert_eq!((contents.org, contents.document.as_slice()), (Some(ORG), b"onetwo".as_slice()));
    store.append(b"three").unwrap();
    drop(store);
    let (_, contents) = Store::open(DirectoryDisk::open(&path).unwrap()).unwrap();
    assert_eq!(contents.document, b"onetwothree");
}

#[test]
fn increments_are_folded_once_they_outgrow_the_whole_before_them() {
    let disk = TestDisk::default();
    let (mut store, _) = Store::open(disk.clone()).unwrap();
    let some = vec![7; 100 * 1024];
    let appends = |store: &mut Store<TestDisk>| {
        let mut count = 0;
        while !store.wants_replacing() {
            store.append(&some).unwrap();
            count += 1;
        }
        count
    };
    store.replace(&ORG, &[1]).unwrap();
    assert_eq!(appends(&mut store), 3, "a small list is not folded for every change");
    store.replace(&ORG, &vec![1; 1024 * 1024]).unwrap();
    assert_eq!(appends(&mut store), 11);
    // The same after a start: what was appended before it still counts.
    assert!(Store::open(disk.clone()).unwrap().0.wants_replacing());
    store.replace(&ORG, &vec![1; 1024 * 1024]).unwrap();
    assert!(!Store::open(disk).unwrap().0.wants_replacing());
}
