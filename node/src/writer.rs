//! The thread that waits for the disk, so that nobody else does.

use std::thread;

use identity::OrgId;
use tokio::sync::mpsc;

use crate::{
    clock,
    store::{Disk, Store, StoreError},
};

/// What to write.
#[derive(Debug)]
pub enum Write {
    /// An increment of the document.
    Append(Vec<u8>),
    /// The whole document of an org.
    Replace(OrgId, Vec<u8>),
}

/// A write is durable, or was refused.
#[derive(Debug)]
pub struct Written {
    /// Why it was refused.
    pub result: Result<(), String>,
    /// When it was durable: nanoseconds of CLOCK_REALTIME since 1970.
    pub unix_ns: u64,
    /// Whether the next write has to be, or should be, the whole document.
    pub wants_replacing: bool,
}

/// Starts the thread. It ends when the sender is dropped, after the write that is under way.
///
/// # Errors
/// The operating system gives no thread.
pub fn spawn<D: Disk + Send + 'static>(
    mut store: Store<D>,
    written: mpsc::Sender<Written>,
) -> std::io::Result<(mpsc::Sender<Write>, thread::JoinHandle<()>)> {
    let (writes, mut received) = mpsc::channel(1);
    let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
        while let Some(write) = received.blocking_recv() {
            let outcome = perform(&mut store, write, clock::unix_ns);
            if written.blocking_send(outcome).is_err() {
                return;
            }
        }
    })?;
    Ok((writes, thread))
}

/// Writes and waits; the clock is read after that.
pub fn perform<D: Disk>(store: &mut Store<D>, write: Write, clock: impl FnOnce() -> u64) -> Written {
    let result = match write {
        Write::Append(bytes) => store.append(&bytes),
        Write::Replace(org, document) => store.replace(&org, &document),
    };
    let result = result.map_err(|error| match error {
        StoreError::Disk(source) => source.to_string(),
        StoreError::Damaged { .. } | StoreError::InUse | StoreError::Newer(_) | StoreError::Unwritable => {
            error.to_string()
        }
    });
    Written { result, unix_ns: clock(), wants_replacing: store.wants_replacing() }
}
