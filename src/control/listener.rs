//! The socket file: who may connect, from its first moment on, and how a stale one is told from a living one.
//!
//! * The file appears with mode 0600, gets its group, then mode 0660, and only then listens: there is no moment in
//!   which somebody else could connect. The process-wide umask is never touched (other threads create files too).
//! * A file that is already there is removed only if it is a socket, belongs to us and nobody answers on it. A lock
//!   on the directory keeps two daemons from doing that at the same time.
//! * Whoever may write to the file may do everything: root, our user, members of the group. The peer's credentials
//!   (`SO_PEERCRED`, unix(7)) are checked again on every connection, in case somebody opened up the file's mode.

use std::ffi::CString;
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};

/// Where the socket lies and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// the socket file; its directory is made, with mode 0750, if it is missing
    pub path: PathBuf,
    /// the group whose members may connect; our own if `None`
    pub group: Option<String>,
    /// where `/metrics` is served over TCP too
    pub metrics: Option<SocketAddr>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon answers.
    #[error("{0} is in use by another running fullnatd: stop that one or give this one another socket path")]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{0} exists and is not a socket: move it away or choose another socket path")]
    NotASocket(PathBuf),
    /// Not ours to remove.
    #[error("{0} is a socket left by another user (uid {1}): remove it or choose another socket path")]
    Foreign(PathBuf, u32),
    /// Unknown group.
    #[error("there is no group {0:?}: create it (groupadd) or name another in the configuration")]
    NoGroup(String),
    /// The path names no file in a directory.
    #[error(
        "{0} is not a usable socket path: write an absolute path of at most 107 bytes, such as /run/fullnat/control.sock"
    )]
    Path(PathBuf),
    /// Another daemon starts at this moment.
    #[error("the directory {0} stays locked by another process: is another fullnatd starting?")]
    Locked(PathBuf),
    /// The TCP socket for metrics cannot be had.
    #[error("cannot listen on {address} for metrics: {error}; choose another metrics_listen")]
    Metrics {
        /// where
        address: SocketAddr,
        /// what the system said
        error: io::Error,
    },
    /// The operating system refused.
    #[error(
        "cannot {action} {path}: {error}; choose another path for control.socket, or let fullnatd write there"
    )]
    Os {
        /// what was tried
        action: &'static str,
        /// with what
        path: PathBuf,
        /// what it said
        error: io::Error,
    },
}

/// A bound, listening socket; its file goes away with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// device and inode of the file, to remove no other
    identity: (u64, u64),
    group: Gid,
}

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// its effective user
    pub uid: u32,
    /// its effective group
    pub gid: u32,
    /// its process, if the kernel knows
    pub pid: Option<i32>,
}

impl Listener {
    /// Makes the socket file and listens.
    pub fn bind(config: &ListenerConfig) -> Result<Self, ListenError> {
        let path = &config.path;
        let os = |action| move |error: io::Error| ListenError::Os { action, path: path.clone(), error };
        let nix = |action| move |error: nix::Error| os(action)(error.into());
        let unusable = || ListenError::Path(path.clone());
        let directory = path.parent().filter(|parent| parent.is_absolute()).ok_or_else(unusable)?;
        let address = UnixAddr::new(path).map_err(|_| unusable())?;
        let group = group(config.group.as_deref())?;
        make_directory(directory, config.group.is_some().then_some(group))?;
        let _lock = lock(directory)?;
        remove_stale(path)?;

        let socket = bind_for_us_alone(path, &address)?;
        let identity = identity(path).map_err(os("find"))?;
        // Owned from here on, so that the file is removed if a later step fails.
        let listener = Listener { socket: socket.into(), path: path.clone(), identity, group };
        if config.group.is_some() {
            lchown(path, None, Some(group.as_raw())).map_err(os("give its group to"))?;
        }
        std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(os("set the mode of"))?;
        listen(&listener.socket, Backlog::MAXCONN).map_err(nix("listen on"))?;
        Ok(listener)
    }

    /// The socket, for the runtime's reactor.
    pub(super) fn socket(&self) -> io::Result<UnixListener> {
        self.socket.try_clone()
    }

    /// Whether the peer may do things here.
    pub(super) fn admits(&self, peer: Peer) -> bool {
        peer.uid == 0
            || peer.uid == geteuid().as_raw()
            || peer.gid == self.group.as_raw()
            || is_member(Uid::from_raw(peer.uid), Gid::from_raw(peer.gid), self.group)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A bound socket that does not listen yet and whose file has mode 0600 from its first moment.
fn bind_for_us_alone(path: &Path, address: &UnixAddr) -> Result<OwnedFd, ListenError> {
    let os = |action| {
        move |error: nix::Error| ListenError::Os { action, path: path.to_owned(), error: error.into() }
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(os("make"))?;
    // Linux gives the file the mode of the socket, less the umask.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).map_err(os("restrict"))?;
    bind(socket.as_raw_fd(), address).map_err(os("bind"))?;
    Ok(socket)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn group(name: Option<&str>) -> Result<Gid, ListenError> {
    let Some(name) = name else { return Ok(nix::unistd::getegid()) };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        _ => Err(ListenError::NoGroup(name.to_owned())),
    }
}

/// Whether the user database lists the user in the group.
fn is_member(uid: Uid, primary: Gid, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, primary).is_ok_and(|groups| groups.contains(&group))
}

fn make_directory(directory: &Path, group: Option<Gid>) -> Result<(), ListenError> {
    let os = |action| move |error| ListenError::Os { action, path: directory.to_owned(), error };
    match DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => match group {
            Some(group) => lchown(directory, None, Some(group.as_raw())).map_err(os("give its group to")),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(os("make the directory")(error)),
    }
}

fn lock(directory: &Path) -> Result<Flock<File>, ListenError> {
    let os = |error| ListenError::Os { action: "open", path: directory.to_owned(), error };
    let mut file = File::open(directory).map_err(os)?;
    for _ in 0..20 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::Error::EWOULDBLOCK)) => file = back,
            Err((_, error)) => {
                return Err(ListenError::Os {
                    action: "lock",
                    path: directory.to_owned(),
                    error: error.into(),
                });
            }
        }
        sleep(Duration::from_millis(50));
    }
    Err(ListenError::Locked(directory.to_owned()))
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let os = |action| move |error| ListenError::Os { action, path: path.to_owned(), error };
    let file = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(os("look at"))?,
    };
    if !file.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    if file.uid() != geteuid().as_raw() {
        return Err(ListenError::Foreign(path.to_owned(), file.uid()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(os("remove the stale"))
        }
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) => Err(os("find out whether somebody answers on")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, ListenerConfig) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        (directory, ListenerConfig { path, group: None, metrics: None })
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn conformance_n1_modes_are_tight() {
        let (directory, config) = place();
        let early = directory.path().join("early.sock");
        let _early = bind_for_us_alone(&early, &UnixAddr::new(&early).unwrap()).unwrap();
        assert_eq!(mode(&early), 0o600, "before it listens");
        assert!(UnixStream::connect(&early).is_err());
        let listener = Listener::bind(&config).unwrap();
        assert_eq!(mode(&config.path), 0o660);
        assert_eq!(mode(config.path.parent().unwrap()), 0o750);
        drop(listener);
        assert!(!config.path.exists());
    }

    #[test]
    fn a_stale_socket_makes_room_and_a_living_one_does_not() {
        let (_directory, config) = place();
        make_directory(config.path.parent().unwrap(), None).unwrap();
        // Bound and closed without removing the file: what kill -9 leaves.
        drop(UnixListener::bind(&config.path).unwrap());
        assert!(config.path.exists());
        let living = Listener::bind(&config).unwrap();
        assert!(matches!(Listener::bind(&config), Err(ListenError::InUse(_))));
        assert!(UnixStream::connect(&config.path).is_ok());
        drop(living);
    }

    #[test]
    fn conformance_n1_what_is_not_a_socket_is_never_removed() {
        let (directory, config) = place();
        make_directory(config.path.parent().unwrap(), None).unwrap();
        let precious = directory.path().join("precious");
        std::fs::write(&precious, "x").unwrap();
        std::os::unix::fs::symlink(&precious, &config.path).unwrap();
        assert!(matches!(Listener::bind(&config), Err(ListenError::NotASocket(_))));
        std::fs::remove_file(&config.path).unwrap();
        std::fs::write(&config.path, "y").unwrap();
        assert!(matches!(Listener::bind(&config), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&precious).unwrap(), b"x");
        assert_eq!(std::fs::read(&config.path).unwrap(), b"y");
    }

    #[test]
    fn another_daemons_file_is_not_removed_at_the_end() {
        let (_directory, config) = place();
        let first = Listener::bind(&config).unwrap();
        std::fs::remove_file(&config.path).unwrap();
        let second = Listener::bind(&config).unwrap();
        drop(first);
        assert!(config.path.exists());
        drop(second);
        assert!(!config.path.exists());
    }

    #[test]
    fn mistakes_are_told_in_a_sentence() {
        let (_directory, mut config) = place();
        config.group = Some("no-such-group-here".to_owned());
        assert!(Listener::bind(&config).unwrap_err().to_string().contains("groupadd"));
        config.group = None;
        config.path = "relative.sock".into();
        assert!(matches!(Listener::bind(&config), Err(ListenError::Path(_))));
        config.path = Path::new("/tmp").join("x".repeat(200));
        assert!(matches!(Listener::bind(&config), Err(ListenError::Path(_))));
    }

    #[test]
    fn strangers_are_not_admitted() {
        let (_directory, config) = place();
        let listener = Listener::bind(&config).unwrap();
        let peer = |uid, gid| Peer { uid, gid, pid: None };
        let stranger = 4_000_000_000;
        assert!(listener.admits(peer(0, stranger)));
        assert!(listener.admits(peer(geteuid().as_raw(), stranger)));
        assert!(listener.admits(peer(stranger, nix::unistd::getegid().as_raw())));
        assert!(!listener.admits(peer(stranger, stranger)));
    }
}
