//! Where the receiver stands: the cgroup whose sockets it serves and the directory that keeps it alive.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::ReceiverError;
use super::object::is_pin;

/// Where links and maps are pinned unless said otherwise.
pub const PIN_DEFAULT: &str = "/sys/fs/bpf/fullnat-toa";

/// How deep below the root a cgroup is looked for by its number.
const DEPTH_MAX: usize = 16;

/// The directory that keeps the receiver alive.
#[derive(Clone, Debug)]
pub struct Place {
    directory: PathBuf,
}

impl Place {
    /// A directory that need not exist yet; the one above it is on a bpf file system.
    pub fn at(directory: impl Into<PathBuf>) -> Result<Place, ReceiverError> {
        let place = Place { directory: directory.into() };
        let above = place.above();
        if is_of(above, BPF_FS_MAGIC) { Ok(place) } else { Err(ReceiverError::NoBpffs(above.into())) }
    }

    fn above(&self) -> &Path {
        match self.directory.parent() {
            Some(above) if above.as_os_str().is_empty() => Path::new("."),
            Some(above) => above,
            None => Path::new("/"),
        }
    }

    /// Keeps everybody else from attaching and detaching here until it is dropped; waits for whoever does so now.
    pub(super) fn lock(&self) -> Result<Flock<File>, ReceiverError> {
        let above = self.above();
        let cannot = || ReceiverError::at(format!("cannot lock {}", above.display()));
        let directory = File::open(above).map_err(cannot())?;
        Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| cannot()(error.into()))
    }

    /// Where something of the receiver is pinned.
    pub(super) fn pin(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn create(&self) -> Result<(), ReceiverError> {
        fs::create_dir_all(&self.directory)
            .map_err(ReceiverError::at(format!("cannot make {}", self.directory.display())))
    }

    /// Whether the directory is there; one with anything in it that the receiver does not pin is refused.
    pub(super) fn is_taken(&self) -> Result<bool, ReceiverError> {
        let cannot = ReceiverError::at(format!("cannot read {}", self.directory.display()));
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(cannot)?,
        };
        let foreign = entries.flatten().find(|entry| !is_pin(&entry.file_name()));
        match foreign {
            Some(entry) => Err(ReceiverError::Foreign(entry.path())),
            None => Ok(true),
        }
    }

    /// Takes away every pin and the directory.
    pub(super) fn remove(&self) -> Result<(), ReceiverError> {
        self.is_taken()?;
        let cannot = || ReceiverError::at(format!("cannot remove {}", self.directory.display()));
        for entry in fs::read_dir(&self.directory).map_err(cannot())?.flatten() {
            fs::remove_file(entry.path()).map_err(cannot())?;
        }
        fs::remove_dir(&self.directory).map_err(cannot())
    }
}

fn is_of(path: &Path, magic: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
}

/// The root of the cgroup2 hierarchy: `/sys/fs/cgroup`, or below it beside the controllers of version 1.
pub fn cgroup_root() -> Result<PathBuf, ReceiverError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    root_in(&mounts).ok_or(ReceiverError::NoCgroup2)
}

/// The mount point of the whole cgroup2 hierarchy in a text as `/proc/self/mountinfo` (proc(5)) has it.
fn root_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        (after.starts_with("cgroup2 ") && fields.get(3) == Some(&"/")).then(|| PathBuf::from(fields[4]))
    })
}

/// A cgroup, opened, and its id.
pub fn open_cgroup(path: &Path) -> Result<(File, u64), ReceiverError> {
    if !path.is_dir() || !is_of(path, CGROUP2_SUPER_MAGIC) {
        return Err(ReceiverError::NotCgroup2(path.into()));
    }
    let cannot = || ReceiverError::at(format!("cannot open {}", path.display()));
    let file = File::open(path).map_err(cannot())?;
    let id = file.metadata().map_err(cannot())?.ino();
    Ok((file, id))
}

/// The path of a cgroup by its id, or what can be said of it.
pub fn cgroup_name(id: u64) -> String {
    if id == 0 {
        return "a cgroup that is gone".into();
    }
    let root = cgroup_root().ok();
    let found = root.and_then(|root| find(&root, id, DEPTH_MAX));
    found.map_or_else(|| format!("cgroup {id}"), |path| path.display().to_string())
}

fn find(directory: &Path, id: u64, depth: usize) -> Option<PathBuf> {
    if fs::metadata(directory).ok()?.ino() == id {
        return Some(directory.into());
    }
    let below = fs::read_dir(directory).ok()?.flatten();
    let mut directories = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    if depth == 0 { None } else { directories.find_map(|entry| find(&entry.path(), id, depth - 1)) }
}

/// The running kernel's release, such as `6.1.0-25-amd64`.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether a release is older than the first that has all that the programs need; one that cannot be read is not.
pub fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 10),
        _ => false,
    }
}

/// Whether this process may do what the receiver does.
pub fn check_capabilities() -> Result<(), ReceiverError> {
    let missing = missing_in(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    missing.map_or(Ok(()), |capability| Err(ReceiverError::NotAllowed(capability)))
}

/// A capability that a process lacks by its `/proc/PID/status`. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
fn missing_in(status: &str) -> Option<&'static str> {
    /// `linux/capability.h`
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    let has = |bit: u32| effective & 1 << bit != 0;
    if !has(NET_ADMIN) {
        Some("CAP_NET_ADMIN")
    } else if !has(BPF) && !has(SYS_ADMIN) {
        Some("CAP_BPF")
    } else if !has(PERFMON) && !has(SYS_ADMIN) {
        Some("CAP_PERFMON")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_beside_version_1() {
        let unified = "36 25 0:32 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "36 25 0:32 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      37 36 0:33 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n\
                      38 36 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let part = "38 36 0:34 /user.slice /mnt rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(unified), Some("/sys/fs/cgroup".into()));
        assert_eq!(root_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(root_in(part), None);
        assert_eq!(root_in(""), None);
    }

    #[test]
    fn kernels_before_5_10_are_too_old() {
        for (release, old) in [
            ("4.18.0-553.el8_10.x86_64", true),
            ("5.9.16", true),
            ("5.10.0-28-amd64", false),
            ("5.4.0-rc1", true),
            ("6.1.0", false),
            ("unknown", false),
        ] {
            assert_eq!(is_too_old(release), old, "{release}");
        }
    }

    #[test]
    fn a_missing_capability_is_named() {
        let status = |bits: u64| format!("Name:\tx\nCapEff:\t{bits:016x}\nCapBnd:\t0\n");
        assert_eq!(missing_in(&status(u64::MAX)), None);
        assert_eq!(missing_in(&status(0)), Some("CAP_NET_ADMIN"));
        assert_eq!(missing_in(&status(1 << 12)), Some("CAP_BPF"));
        assert_eq!(missing_in(&status(1 << 12 | 1 << 39)), Some("CAP_PERFMON"));
        assert_eq!(missing_in(&status(1 << 12 | 1 << 39 | 1 << 38)), None);
        assert_eq!(missing_in(&status(1 << 12 | 1 << 21)), None);
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        assert!(
            matches!(Place::at("/proc/fullnat-toa"), Err(ReceiverError::NoBpffs(above)) if above == Path::new("/proc"))
        );
        assert!(matches!(Place::at("here"), Err(ReceiverError::NoBpffs(above)) if above == Path::new(".")));
        assert!(matches!(open_cgroup(Path::new("/proc")), Err(ReceiverError::NotCgroup2(_))));
    }

    #[test]
    fn what_another_program_has_pinned_is_not_touched() {
        let above = tempfile::tempdir().unwrap();
        let place = Place { directory: above.path().join("pins") };
        assert!(!place.is_taken().unwrap());
        place.create().unwrap();
        for name in ["clients", "established", "connections"] {
            fs::write(place.pin(name), "").unwrap();
        }
        assert!(place.is_taken().unwrap());
        fs::write(place.pin("xdp"), "").unwrap();
        assert!(matches!(place.remove(), Err(ReceiverError::Foreign(path)) if path == place.pin("xdp")));
        assert!(place.pin("clients").exists());
        fs::remove_file(place.pin("xdp")).unwrap();
        place.remove().unwrap();
        assert!(!place.directory().exists());
    }
}
