//! musterd's files on disk, which may be an old copy, damaged, or somebody else's.

use std::{cell::RefCell, io, rc::Rc};

use musterd::store::{Disk, Store};

use crate::sync::next;

/// musterd's file of the member list, and the note beside it of how much of it is acknowledged.
pub fn store(mut data: &[u8]) {
    let note = next(&mut data).unwrap_or_default().to_vec();
    let disk =
        Memory(Rc::new(RefCell::new(Files { members: Some(data.to_vec()), note: Some(note), new: vec![] })));
    let Ok((store, contents)) = Store::open(disk.clone()) else { return };
    drop(store);
    // What was dropped is dropped for good: the next start reads the same.
    let (_, again) = Store::open(disk).unwrap();
    assert_eq!((again.org, again.document, again.dropped), (contents.org, contents.document, 0));
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub struct Memory(Rc<RefCell<Files>>);

#[derive(Debug, Default)]
struct Files {
    members: Option<Vec<u8>>,
    note: Option<Vec<u8>>,
    new: Vec<u8>,
}

impl Disk for Memory {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().members.clone())
    }

    fn read_acknowledged(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.borrow().note.clone())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        let members = files.members.get_or_insert_default();
        assert_eq!(u64::try_from(members.len()).unwrap(), offset);
        members.extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.borrow_mut().members.as_mut().unwrap().truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_new(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().new = bytes.to_vec();
        Ok(())
    }

    fn sync_new(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn rename_new(&mut self) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        files.members = Some(std::mem::take(&mut files.new));
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write_acknowledged(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().note = Some(bytes.to_vec());
        Ok(())
    }
}
