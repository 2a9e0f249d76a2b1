//! The compiled programs, as `build.rs` put them in, and their loading.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{LpmTrie, Map, MapData, MapInfo};
use aya::programs::{CgroupSkb, CgroupSockAddr, CgroupSockopt, Iter, Program, SockOps};
use aya::{Btf, Ebpf, EbpfLoader};

use super::place::{self, Place};
use super::sys::Hook;
use super::{Extras, ReceiverError};

/// One compilation of `ffi/toa.bpf.c` or `ffi/uoa.bpf.c`.
struct Object {
    /// what this one lacks against the first, as words for people
    lacks: &'static [&'static str],
    bytes: &'static [u8],
}

// `OBJECTS` and, for UDP, `UDP_OBJECTS`: the richest first; empty where clang was missing.
include!(concat!(env!("OUT_DIR"), "/toa_objects.rs"));

/// For whom a program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// for everybody
    Always,
    /// by [`Extras::look_up`]
    LookUp,
    /// by [`Extras::udp_idle`]
    Udp,
}

impl Part {
    /// Whether it is asked for.
    pub const fn is_wanted(self, extras: &Extras) -> bool {
        match self {
            Part::Always => true,
            Part::LookUp => extras.look_up,
            Part::Udp => extras.udp_idle.is_some(),
        }
    }
}

/// Every program that is tied to a cgroup: its name, its hook and for whom. Options are read last to begin and first to
/// end; before servers are shown clients of UDP their answers find the way.
pub const HOOKS: [(&str, Hook, Part); 10] = [
    ("getpeername4", Hook::GetPeerName4, Part::Always),
    ("getpeername6", Hook::GetPeerName6, Part::Always),
    ("getsockopt", Hook::GetSockOpt, Part::LookUp),
    (ESTABLISHED, Hook::SockOps, Part::Always),
    ("sendmsg4", Hook::SendMsg4, Part::Udp),
    ("connect4", Hook::Connect4, Part::Udp),
    ("connect6", Hook::Connect6, Part::Udp),
    ("recvmsg4", Hook::RecvMsg4, Part::Udp),
    ("recvmsg6", Hook::RecvMsg6, Part::Udp),
    ("udp_arrives", Hook::Ingress, Part::Udp),
];
/// The program that reads the option.
pub const ESTABLISHED: &str = "established";
/// The iterator.
pub const CONNECTIONS: &str = "connections";
/// The map of clients by socket.
pub const CLIENTS: &str = "clients";
/// The map of counters.
pub const COUNTERS: &str = "counters";
/// The maps that only the programs for UDP have.
pub const UDP_MAPS: [&str; 2] = ["udp_clients", "udp_gateways"];
/// How long a session of UDP may be silent, in the programs.
const IDLE_NANOS: &str = "idle_nanos";
/// The map of prefixes.
pub const TRUSTED: &str = "trusted";

/// Whether the receiver pins something of this name.
pub fn is_pin(name: &OsStr) -> bool {
    let links = HOOKS.iter().map(|(name, ..)| *name);
    links.chain([CONNECTIONS, CLIENTS, COUNTERS, TRUSTED]).chain(UDP_MAPS).any(|pin| name == pin)
}

/// Programs in the kernel, tied to nothing yet, and the maps they share with those that ran before.
pub struct Programs {
    tcp: Ebpf,
    udp: Option<Ebpf>,
    /// what this kernel cannot do, as words for people
    pub lacks: Vec<&'static str>,
}

/// Whether the build had a compiler for the programs.
pub fn is_compiled() -> bool {
    !OBJECTS.is_empty()
}

/// Loads the richest objects that this kernel takes. Maps are those pinned at the place, or new ones that are pinned.
///
/// What a kernel has is found by trying: distributions bring features to older numbers.
pub fn load(place: &Place, extras: &Extras) -> Result<Programs, ReceiverError> {
    // Megabytes to parse: once for all that need it.
    let kernel = Btf::from_sys_fs().ok();
    let (tcp, lacks) = load_richest(OBJECTS, place, kernel.as_ref(), extras).map_err(|reason| {
        let release = place::kernel_release();
        if OBJECTS.is_empty() {
            ReceiverError::NotCompiled
        } else if place::is_too_old(&release) {
            ReceiverError::KernelTooOld { release }
        } else {
            ReceiverError::Refused { release, reason }
        }
    })?;
    let mut programs = Programs { tcp, udp: None, lacks: lacks.to_vec() };
    if Part::Udp.is_wanted(extras) {
        let (udp, lacks) = load_richest(UDP_OBJECTS, place, kernel.as_ref(), extras)
            .map_err(|reason| ReceiverError::RefusedUdp { release: place::kernel_release(), reason })?;
        programs.udp = Some(udp);
        programs.lacks.extend(lacks);
    }
    Ok(programs)
}

/// The first object that the kernel takes and what it lacks, or what was said of the last one.
fn load_richest(
    objects: &[Object],
    place: &Place,
    kernel: Option<&Btf>,
    extras: &Extras,
) -> Result<(Ebpf, &'static [&'static str]), String> {
    let mut reason = String::new();
    for object in objects {
        match load_object(object.bytes, place, kernel, extras) {
            Ok(ebpf) => return Ok((ebpf, object.lacks)),
            Err(error) => reason = said(&error),
        }
    }
    Err(reason)
}

fn load_object(
    bytes: &[u8],
    place: &Place,
    kernel: Option<&Btf>,
    extras: &Extras,
) -> Result<Ebpf, anyhow::Error> {
    unpin_unlike(bytes, place)?;
    let idle = extras.udp_idle.unwrap_or_default().as_nanos() as u64;
    let mut ebpf = EbpfLoader::new()
        .btf(kernel)
        .default_map_pin_directory(place.directory())
        // Only the programs for UDP have it.
        .override_global(IDLE_NANOS, &idle, false)
        .load(bytes)?;
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::SockOps(_) => <&mut SockOps>::try_from(program)?.load()?,
            Program::CgroupSkb(_) => <&mut CgroupSkb>::try_from(program)?.load()?,
            Program::CgroupSockAddr(_) => <&mut CgroupSockAddr>::try_from(program)?.load()?,
            Program::CgroupSockopt(_) if extras.look_up => <&mut CgroupSockopt>::try_from(program)?.load()?,
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
        let objects = [Some(&self.tcp), self.udp.as_ref()];
        let program = objects.into_iter().flatten().find_map(|object| object.program(name))?;
        Some(program.fd().ok()?.as_fd())
    }

    /// The map of clients by socket.
    pub fn clients(&self) -> Option<BorrowedFd<'_>> {
        match self.tcp.map(CLIENTS)? {
            Map::SkStorage(map) => Some(map.fd().as_fd()),
            _ => None,
        }
    }

    /// The map of prefixes.
    pub fn trusted(&mut self) -> Result<LpmTrie<&mut MapData, [u8; 16], u8>, ReceiverError> {
        let what = "the object's map of trusted senders";
        let map = self.tcp.map_mut(TRUSTED).ok_or("is missing").map_err(ReceiverError::at(what))?;
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
        let tied = HOOKS.iter().filter(|(.., part)| *part != Part::Udp);
        assert_eq!(between.len(), tied.count() + 1);
        for (name, code) in between {
            assert!([first, last].iter().any(|object| object.get(name) == Some(code)), "{name}");
        }
    }

    #[test]
    fn the_richest_object_comes_first() {
        for objects in [OBJECTS, UDP_OBJECTS] {
            assert!(objects.windows(2).all(|pair| pair[0].lacks.len() < pair[1].lacks.len()));
            assert!(objects.first().is_none_or(|first| first.lacks.is_empty()));
        }
    }
}
