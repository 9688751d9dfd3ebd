//! The thread that moves packets.
//!
//! The endpoint and all its transfers share one thread of their own: where the tasks of one connection lie on different
//! threads, each packet costs a wake-up from one to the other, and more time than anything else that is done with it. What
//! may block for long runs on further threads, as everywhere; `super::assembly` says when that is what is written.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use alliance_protocol::limits;

/// Threads for files: two for each transfer that may run, at the most.
const BLOCKING_THREADS_MAX: usize = 2 * limits::CROSSINGS_RUNNING_MAX;

/// A thread with a runtime, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct PacketThread {
    handle: Handle,
    /// Dropped to end it.
    _until: oneshot::Sender<()>,
}

impl PacketThread {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build()?;
        let handle = runtime.handle().clone();
        let (until, dropped) = oneshot::channel::<()>();
        thread::Builder::new().name("bulk".to_owned()).spawn(move || {
            // Always an error: nothing is ever sent.
            let _ = runtime.block_on(dropped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _until: until })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
