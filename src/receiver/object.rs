//! The compiled programs, as `build.rs` put them in, and their loading.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{LpmTrie, Map, MapData, MapInfo};
use aya::programs::{CgroupSockAddr, CgroupSockopt, Iter, Program, SockOps};
use aya::{Btf, Ebpf, EbpfLoader};

use super::ReceiverError;
use super::place::{self, Place};
use super::sys::Hook;

/// One compilation of `ffi/toa.bpf.c`.
struct Object {
    /// what this one lacks against the first, as words for people
    lacks: &'static [&'static str],
    bytes: &'static [u8],
}

// `OBJECTS`: the richest first; empty where clang was missing.
include!(concat!(env!("OUT_DIR"), "/toa_objects.rs"));

/// Every program that is tied to a cgroup: its name and its hook. The option is read last to begin and first to end.
pub const HOOKS: [(&str, Hook); 4] = [
    ("getpeername4", Hook::GetPeerName4),
    ("getpeername6", Hook::GetPeerName6),
    (LOOK_UP, Hook::GetSockOpt),
    (ESTABLISHED, Hook::SockOps),
];
/// The program that reads the option.
pub const ESTABLISHED: &str = "established";
/// The program that answers `getsockopt(IPPROTO_IP, 4096)`; every getsockopt of the cgroup passes it, hence by request.
pub const LOOK_UP: &str = "getsockopt";
/// The iterator.
pub const CONNECTIONS: &str = "connections";
/// The map of clients by socket.
pub const CLIENTS: &str = "clients";
/// The map of counters.
pub const COUNTERS: &str = "counters";
/// The map of prefixes.
pub const TRUSTED: &str = "trusted";

/// Whether the receiver pins something of this name.
pub fn is_pin(name: &OsStr) -> bool {
    let links = HOOKS.iter().map(|(name, _)| *name);
    links.chain([CONNECTIONS, CLIENTS, COUNTERS, TRUSTED]).any(|pin| name == pin)
}

/// Programs in the kernel, tied to nothing yet, and the maps they share with those that ran before.
pub struct Programs {
    ebpf: Ebpf,
    /// what this kernel cannot do, as words for people
    pub lacks: &'static [&'static str],
}

/// Whether the build had a compiler for the programs.
pub fn is_compiled() -> bool {
    !OBJECTS.is_empty()
}

/// Loads the richest object that this kernel takes. Maps are those pinned at the place, or new ones that are pinned.
///
/// What a kernel has is found by trying: distributions bring features to older numbers.
pub fn load(place: &Place, with_look_up: bool) -> Result<Programs, ReceiverError> {
    let mut reason = String::new();
    // Megabytes to parse: once for all that need it.
    let kernel = Btf::from_sys_fs().ok();
    for object in OBJECTS {
        match load_object(object.bytes, place, kernel.as_ref(), with_look_up) {
            Ok(ebpf) => return Ok(Programs { ebpf, lacks: object.lacks }),
            Err(error) => reason = said(&error),
        }
    }
    let release = place::kernel_release();
    Err(if OBJECTS.is_empty() {
        ReceiverError::NotCompiled
    } else if place::is_too_old(&release) {
        ReceiverError::KernelTooOld { release }
    } else {
        ReceiverError::Refused { release, reason }
    })
}

fn load_object(
    bytes: &[u8],
    place: &Place,
    kernel: Option<&Btf>,
    with_look_up: bool,
) -> Result<Ebpf, anyhow::Error> {
    unpin_unlike(bytes, place)?;
    let mut ebpf = EbpfLoader::new().btf(kernel).default_map_pin_directory(place.directory()).load(bytes)?;
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::SockOps(_) => <&mut SockOps>::try_from(program)?.load()?,
            Program::CgroupSockAddr(_) => <&mut CgroupSockAddr>::try_from(program)?.load()?,
            Program::CgroupSockopt(_) if with_look_up => <&mut CgroupSockopt>::try_from(program)?.load()?,
            Program::CgroupSockopt(_) => {}
            Program::Iter(_) => {
                let kernel = kernel.ok_or_else(|| anyhow::anyhow!("no /sys/kernel/btf/vmlinux"))?;
                <&mut Iter>::try_from(program)?.load("bpf_sk_storage_map", kernel)?;
            }
            _ => anyhow::bail!("the object has a program {name} of another kind"),
        }
    }
    Ok(ebpf)
}

/// Unpins every map that another version has made otherwise than this object does: a new one takes its place. Programs that
/// run go on with theirs.
fn unpin_unlike(bytes: &[u8], place: &Place) -> Result<(), anyhow::Error> {
    for (name, wanted) in aya_obj::Object::parse(bytes)?.maps {
        let pin = place.pin(&name);
        let Ok(pinned) = MapInfo::from_pin(&pin) else { continue };
        let is_like = pinned.map_type()? as u32 == wanted.map_type()
            && pinned.key_size() == wanted.key_size()
            && pinned.value_size() == wanted.value_size()
            && pinned.max_entries() == wanted.max_entries();
        if !is_like {
            fs::remove_file(&pin)?;
        }
    }
    Ok(())
}

/// An error and its causes in one line, the verifier's log by its end: there stands what it did not like.
fn said(error: &anyhow::Error) -> String {
    const LEN_MAX: usize = 400;
    let line = format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ");
    let from = line.char_indices().rev().nth(LEN_MAX).map_or(0, |(at, _)| at);
    if from == 0 { line } else { format!("... {}", &line[from..]) }
}

impl Programs {
    /// A program by its name, if this kernel has it.
    pub fn fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let fd = self.ebpf.program(name)?.fd().ok()?;
        Some(fd.as_fd())
    }

    /// The map of clients by socket.
    pub fn clients(&self) -> Option<BorrowedFd<'_>> {
        match self.ebpf.map(CLIENTS)? {
            Map::SkStorage(map) => Some(map.fd().as_fd()),
            _ => None,
        }
    }

    /// The map of prefixes.
    pub fn trusted(&mut self) -> Result<LpmTrie<&mut MapData, [u8; 16], u8>, ReceiverError> {
        let what = "the object's map of trusted senders";
        let map = self.ebpf.map_mut(TRUSTED).ok_or("is missing").map_err(ReceiverError::at(what))?;
        LpmTrie::try_from(map).map_err(ReceiverError::at(what))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_long_refusal_is_known_by_its_end() {
        let error = anyhow::anyhow!("{}\n  the last line", "instruction ".repeat(200)).context("load");
        let line = said(&error);
        assert!(
            line.starts_with("... ") && line.ends_with("instruction the last line") && line.len() < 420,
            "{line}"
        );
        assert_eq!(said(&anyhow::anyhow!("short\n reason")), "short reason");
    }

    /// The end-to-end tests load the first and, with the kernel's type information hidden, the last.
    #[test]
    fn every_program_of_the_object_between_is_also_in_the_first_or_the_last() {
        let programs = |object: &Object| -> BTreeMap<String, String> {
            let functions = aya_obj::Object::parse(object.bytes).unwrap().functions.into_values();
            functions.map(|function| (function.name, format!("{:?}", function.instructions))).collect()
        };
        let [first, between, last] = &OBJECTS.iter().map(programs).collect::<Vec<_>>()[..] else {
            assert!(!is_compiled());
            return;
        };
        assert_eq!(between.len(), HOOKS.len() + 1);
        for (name, code) in between {
            assert!([first, last].iter().any(|object| object.get(name) == Some(code)), "{name}");
        }
    }

    #[test]
    fn the_richest_object_comes_first() {
        assert!(OBJECTS.windows(2).all(|pair| pair[0].lacks.len() < pair[1].lacks.len()));
        assert!(OBJECTS.first().is_none_or(|first| first.lacks.is_empty()));
    }
}
