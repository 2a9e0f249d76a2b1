//! Attaching, in place of what is attached already, and taking away.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::object::{self, CONNECTIONS, ESTABLISHED, HOOKS, Part, Programs, UDP_MAPS};
use super::place::{self, Place};
use super::sys::Link;
use super::{Extras, ReceiverError, Trust};

/// What an attaching came to.
#[derive(Debug)]
pub struct Attached {
    /// the cgroup whose sockets it serves
    pub cgroup: PathBuf,
    /// whether programs that were attached before gave way
    pub replaced: bool,
    /// what this kernel cannot do, as words for people
    pub lacks: Vec<&'static str>,
}

/// Attaches the programs to a cgroup, the root of the hierarchy unless named, and pins all that keeps them there.
///
/// Attached already, to the same cgroup: each program is replaced at once, and clients and counters stay.
///
/// # Errors
/// What the machine lacks, in one sentence; nothing is left behind then that was not there before.
pub fn attach(
    place: &Place,
    cgroup: Option<&Path>,
    trust: &Trust,
    extras: &Extras,
) -> Result<Attached, ReceiverError> {
    if !object::is_compiled() {
        return Err(ReceiverError::NotCompiled);
    }
    place::check_capabilities()?;
    let cgroup = cgroup.map_or_else(place::cgroup_root, |path| Ok(path.to_owned()))?;
    let (directory, id) = place::open_cgroup(&cgroup)?;
    let _alone = place.lock()?;
    let taken = place.is_taken()?;
    let was = Link::open(&place.pin(ESTABLISHED)).ok().and_then(|link| link.cgroup_id().ok());
    match was {
        Some(other) if other != 0 && other != id => {
            return Err(ReceiverError::AttachedElsewhere(place::cgroup_name(other)));
        }
        // The cgroup went and took the links' work with it, or an attaching was interrupted: begin anew.
        Some(0) | None if taken => place.remove()?,
        _ => {}
    }
    let replaced = was.is_some_and(|id| id != 0);
    place.create()?;
    let done = load_and_link(place, &directory, trust, extras);
    if done.is_err() && !replaced {
        let _ = place.remove();
    }
    Ok(Attached { cgroup, replaced, lacks: done? })
}

fn load_and_link(
    place: &Place,
    cgroup: &fs::File,
    trust: &Trust,
    extras: &Extras,
) -> Result<Vec<&'static str>, ReceiverError> {
    let mut programs = object::load(place, extras)?;
    // Before the first option is read: nobody's is taken meanwhile whom the new list does not have.
    trust.write(&mut programs.trusted()?)?;
    // What is not asked for any more goes first, the reading of options before all.
    for (name, _, _) in HOOKS.iter().rev().filter(|(_, _, part)| !part.is_wanted(extras)) {
        take_away(&place.pin(name));
    }
    if !Part::Udp.is_wanted(extras) {
        for name in UDP_MAPS {
            let _ = fs::remove_file(place.pin(name));
        }
    }
    for (name, hook, _) in HOOKS.into_iter().filter(|(_, _, part)| part.is_wanted(extras)) {
        let pin = place.pin(name);
        let what = format!("cannot attach the program {name}");
        let program = programs.fd(name).ok_or("it is not loaded").map_err(ReceiverError::at(&*what))?;
        let cannot = || ReceiverError::at(&*what);
        match Link::open(&pin) {
            Ok(link) => link.update(program).map_err(cannot())?,
            Err(_) => {
                let link = Link::to_cgroup(program, cgroup.as_fd(), hook).map_err(cannot())?;
                link.pin(&pin).map_err(cannot())?;
            }
        }
    }
    list_connections(place, &programs)?;
    Ok(programs.lacks)
}

fn list_connections(place: &Place, programs: &Programs) -> Result<(), ReceiverError> {
    let pin = place.pin(CONNECTIONS);
    let _ = fs::remove_file(&pin);
    if let (Some(program), Some(clients)) = (programs.fd(CONNECTIONS), programs.clients()) {
        let link = Link::over_map(program, clients);
        link.and_then(|link| link.pin(&pin)).map_err(ReceiverError::at("cannot attach the iterator"))?;
    }
    Ok(())
}

/// Undoes the link pinned at a path, if there is one.
fn take_away(pin: &Path) {
    if let Ok(link) = Link::open(pin) {
        // Refused for a cgroup that is gone: then there is nothing to undo.
        let _ = link.detach();
        let _ = fs::remove_file(pin);
    }
}

/// Takes the programs away, and with them what they know of live connections: these show the gateway from now on.
pub fn detach(place: &Place) -> Result<(), ReceiverError> {
    place::check_capabilities()?;
    let _alone = place.lock()?;
    if !place.is_taken()? {
        return Err(ReceiverError::NotAttached(place.directory().into()));
    }
    for (name, _, _) in HOOKS.iter().rev() {
        take_away(&place.pin(name));
    }
    place.remove()
}
