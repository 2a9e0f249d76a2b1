//! stdout and stderr held back while DPDK, getopt or libxdp might print there.
//!
//! They print usages and remarks where an operator shall read one sentence, and a JSON document may be expected.
//! File descriptors are the process's, so this is for start and end, when one thread runs.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{dup, dup2_stderr, dup2_stdout};

use super::sys;

/// The two streams, held back.
pub(super) struct Output {
    file: File,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Output {
    /// Sends both streams to memory.
    pub(super) fn hold() -> io::Result<Output> {
        let file = File::from(memfd_create(c"dpdk-output", MFdFlags::MFD_CLOEXEC)?);
        // SAFETY: flushes C's streams.
        unsafe { sys::shim_flush_stdio() };
        let (stdout, stderr) = (dup(io::stdout())?, dup(io::stderr())?);
        dup2_stdout(&file)?;
        dup2_stderr(&file)?;
        Ok(Output { file, stdout, stderr })
    }

    /// Puts them back; what was printed.
    pub(super) fn release(mut self) -> io::Result<String> {
        // SAFETY: flushes C's streams into what we hold.
        unsafe { sys::shim_flush_stdio() };
        dup2_stdout(&self.stdout)?;
        dup2_stderr(&self.stderr)?;
        let mut printed = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut printed)?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

/// Runs `call`; what it prints goes to our log for the curious.
pub(super) fn quietly<T>(call: impl FnOnce() -> T) -> T {
    let output = Output::hold();
    let result = call();
    if let Ok(printed) = output.and_then(Output::release) {
        for line in printed.lines().filter(|line| !line.trim().is_empty()) {
            tracing::debug!(target: "dpdk", "{line}");
        }
    }
    result
}
