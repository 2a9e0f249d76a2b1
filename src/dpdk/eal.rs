//! DPDK's environment: memory, plug-ins and buses, once per process.
//!
//! The operator's arguments go to DPDK as they are. What he left open is filled in so that the gateway takes one core
//! for control, keeps to itself and leaves nothing behind: see [`Arguments::complete`]. What DPDK would explain badly
//! is checked before, and what it says on stdout, stderr and in its log becomes the reason in one sentence.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use super::output::{self, Output};
use super::{log, sys, system};

/// Why DPDK's environment did not come up, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// A second start in one process, or one after a failure that DPDK cannot take back.
    #[error("DPDK can be started only once in a process; start the program again")]
    Started,
    /// An argument that would end the process or that is no C string.
    #[error("dataplane.eal: `{0}` cannot be given here; leave it out")]
    Unusable(String),
    /// A plug-in for what loads none.
    #[error(
        "dataplane.eal: `-d` loads a plug-in, which needs DPDK as shared libraries, and this fullnatd has it within; \
         leave it out, or build one by `FULLNAT_DPDK=shared cargo build --release`"
    )]
    PlugIn,
    /// An argument that DPDK does not take.
    #[error(
        "dataplane.eal: DPDK does not take these arguments ({0}); correct them, one string for each word"
    )]
    Arguments(String),
    /// The kernel has no hugepages.
    #[error(
        "no hugepages are reserved; reserve some (echo 1024 > /proc/sys/vm/nr_hugepages) or run without them by adding \
         \"--no-huge\", \"-m\", \"512\" to dataplane.eal"
    )]
    NoHugepages,
    /// Others have all hugepages.
    #[error("all {0} hugepages are in use; end what uses them or reserve more (/proc/sys/vm/nr_hugepages)")]
    HugepagesInUse(u64),
    /// No hugetlbfs.
    #[error(
        "hugetlbfs is not mounted; mount it (mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages) or add \
         \"--in-memory\" to dataplane.eal"
    )]
    HugetlbfsNotMounted,
    /// The operator's directory is none.
    #[error(
        "dataplane.eal: {0} is not a mounted hugetlbfs; mount it (mount -t hugetlbfs none {0}) or leave --huge-dir out"
    )]
    HugeDirectory(String),
    /// No right to the hugetlbfs.
    #[error("{0} cannot be written to; run as root or give this user the directory")]
    HugetlbfsDenied(PathBuf),
    /// DPDK 22.11 cannot have both.
    #[error(
        "dataplane.eal: \"--in-memory\" and \"--no-huge\" exclude each other in this DPDK; keep one of them"
    )]
    InMemoryWithoutHuge,
    /// Any other failure.
    #[error("DPDK did not start: {0}")]
    Refused(String),
    /// stdout and stderr could not be held back.
    #[error("DPDK was not started: its output could not be captured: {0}")]
    Output(#[from] io::Error),
}

/// DPDK's environment, alive as long as any clone, pool, device or queue is.
#[derive(Clone)]
pub struct Eal(pub(super) Arc<Environment>);

/// What [`Eal`] shares.
pub(super) struct Environment {
    started_by: ThreadId,
    /// removed at the end
    runtime_directory: Option<PathBuf>,
    /// set by a pool whose packets are not all home: memory must stay mapped
    pub(super) packets_abroad: AtomicBool,
    /// the port numbers that some [`super::Device`] owns
    pub(super) ports_taken: Mutex<BTreeSet<u16>>,
}

/// The release of DPDK that runs, such as `DPDK 22.11.11`.
pub fn version() -> String {
    // SAFETY: a constant string of the library.
    unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy().into_owned()
}

impl Eal {
    /// Starts DPDK with the operator's `arguments` for the `devices` of the configuration. The calling thread is
    /// moved to the CPU `control_core` unless the arguments name lcores themselves.
    pub fn init(arguments: &[String], control_core: usize, devices: &[&str]) -> Result<Eal, EalError> {
        static STARTED: AtomicBool = AtomicBool::new(false);

        let arguments = Arguments::of(arguments)?;
        arguments.check_memory()?;
        let words = arguments.complete(control_core, devices);
        let words: Vec<CString> = words
            .into_iter()
            .map(|word| CString::new(word).map_err(|e| EalError::Unusable(format!("{e}"))))
            .collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err(EalError::Started);
        }

        log::capture();
        // DPDK reorders and keeps these pointers; the start happens once, so they may live for ever.
        let argv: &'static mut [*mut c_char] =
            words.into_iter().map(CString::into_raw).chain([std::ptr::null_mut()]).collect::<Vec<_>>().leak();
        let argc = (argv.len() - 1) as i32;
        let output = Output::hold()?;
        // SAFETY: argc strings and a null, alive for ever; no other thread can be in here (STARTED).
        let (result, logged) = log::explain(|| unsafe { sys::rte_eal_init(argc, argv.as_mut_ptr()) });
        let errno = sys::last_error();
        let printed = output.release()?;

        let runtime_directory = runtime_directory();
        if result < 0 {
            // One of the operator's name may belong to another program that runs: that may be why we did not start.
            remove_runtime_directory(runtime_directory.filter(|_| arguments.own_prefix()).as_deref());
            return Err(failure(errno, &logged, &printed, &arguments));
        }
        // The first process of its name has the directory; whoever is told to be another one leaves it.
        let runtime_directory = runtime_directory.filter(|_| !arguments.has(&["--proc-type"]));
        remove_stale_directories(runtime_directory.as_deref());
        Ok(Eal(Arc::new(Environment {
            started_by: std::thread::current().id(),
            runtime_directory,
            packets_abroad: AtomicBool::new(false),
            ports_taken: Mutex::new(BTreeSet::new()),
        })))
    }

    /// Whether packet memory lies in hugepages.
    pub fn has_hugepages(&self) -> bool {
        // SAFETY: reads the configuration of the running environment.
        unsafe { sys::rte_eal_has_hugepages() != 0 }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if self.packets_abroad.load(Ordering::Acquire) {
            tracing::debug!("packets are not all home: DPDK's memory is left to the end of the process");
        } else if std::thread::current().id() == self.started_by {
            // SAFETY: the last handle is gone, with it every pool, device, queue and, by the flag, every packet.
            output::quietly(|| log::explain(|| unsafe { sys::rte_eal_cleanup() }));
        }
        remove_runtime_directory(self.runtime_directory.as_deref());
    }
}

/// The one sentence's reason, from the best of what DPDK said.
fn failure(errno: i32, logged: &str, printed: &str, arguments: &Arguments) -> EalError {
    // getopt's complaint about an unknown option or a missing value; all else that is printed is the usage.
    let complaint = printed.lines().find_map(|line| line.strip_prefix(&format!("{PROGRAM}: ")));
    let reason = match (complaint, logged) {
        (Some(complaint), _) => complaint.to_owned(),
        (None, "") => printed.lines().find(|line| line.starts_with("EAL:")).unwrap_or_default().to_owned(),
        (None, logged) => logged.to_owned(),
    };
    if arguments.in_memory && arguments.no_huge {
        return EalError::InMemoryWithoutHuge;
    }
    if errno == nix::libc::EINVAL {
        return EalError::Arguments(reason);
    }
    EalError::Refused(sys::refusal(&reason, errno))
}

fn runtime_directory() -> Option<PathBuf> {
    // SAFETY: a string in DPDK's static memory, empty before the arguments were read.
    let directory = unsafe { sys::rte_eal_get_runtime_dir() };
    if directory.is_null() {
        return None;
    }
    // SAFETY: not null, and terminated.
    let directory = unsafe { CStr::from_ptr(directory) }.to_str().ok()?;
    (!directory.is_empty()).then(|| PathBuf::from(directory))
}

/// Removes what gateways that were killed left beside ours: directories that bear the id of no process.
fn remove_stale_directories(ours: Option<&Path>) {
    let Some(entries) = ours.and_then(Path::parent).and_then(|parent| std::fs::read_dir(parent).ok()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process =
            name.to_str().and_then(|name| name.strip_prefix(PROGRAM)?.strip_prefix('-')?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes DPDK's files of this process, and only such: the directory is one within `dpdk`.
fn remove_runtime_directory(directory: Option<&Path>) {
    let Some((directory, parent)) = directory.and_then(|directory| Some((directory, directory.parent()?)))
    else {
        return;
    };
    if directory.file_name().is_some() && parent.ends_with("dpdk") {
        let _ = std::fs::remove_dir_all(directory);
        // The directory of all DPDK programs goes with the last of them.
        let _ = std::fs::remove_dir(parent);
    }
}

/// Options of an operator who manages the files of his hugepages himself.
const KEEPS_FILES: [&str; 5] =
    ["--huge-unlink", "--legacy-mem", "--single-file-segments", "--file-prefix", "--proc-type"];

const PROGRAM: &str = "fullnatd";

fn own_prefix() -> String {
    format!("{PROGRAM}-{}", std::process::id())
}

/// The operator's arguments and what of them matters to us.
struct Arguments {
    words: Vec<String>,
    no_huge: bool,
    in_memory: bool,
}

impl Arguments {
    fn of(words: &[String]) -> Result<Arguments, EalError> {
        let words = words.to_vec();
        // These print and end the process.
        if let Some(word) =
            words.iter().find(|word| matches!(word.as_str(), "-h" | "--help" | "-v" | "--version" | "--"))
        {
            return Err(EalError::Unusable(word.clone()));
        }
        let no_huge = words.iter().any(|word| word == "--no-huge");
        let in_memory = words.iter().any(|word| word == "--in-memory");
        let arguments = Arguments { words, no_huge, in_memory };
        if cfg!(dpdk_within) && arguments.has(&["-d"]) {
            return Err(EalError::PlugIn);
        }
        Ok(arguments)
    }

    /// Whether the operator gave one of these options, as `--name`, `--name=value` or `-nvalue`.
    fn has(&self, names: &[&str]) -> bool {
        self.words.iter().any(|word| {
            names.iter().any(|name| match word.strip_prefix(name) {
                Some(rest) => rest.is_empty() || rest.starts_with('=') || name.len() == 2,
                None => false,
            })
        })
    }

    /// The value of a long option, as `--name value` or `--name=value`.
    fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().enumerate().find_map(|(i, word)| match word.strip_prefix(name)? {
            "" => self.words.get(i + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
    }

    fn own_prefix(&self) -> bool {
        !self.has(&["--file-prefix"])
    }

    /// Whether hugepages are taken without a mounted hugetlbfs: chosen unless the operator wants files of them.
    fn memory_without_files(&self) -> bool {
        self.in_memory || !(self.has(&["--huge-dir"]) || self.has(&KEEPS_FILES))
    }

    /// What hugepage memory needs, asked of the kernel first.
    fn check_memory(&self) -> Result<(), EalError> {
        if self.no_huge {
            return Ok(());
        }
        let pages = system::huge_pages();
        let total: u64 = pages.iter().map(|pages| pages.total).sum();
        if total == 0 {
            return Err(EalError::NoHugepages);
        }
        if pages.iter().all(|pages| pages.free == 0) {
            return Err(EalError::HugepagesInUse(total));
        }
        if self.memory_without_files() {
            return Ok(());
        }
        let mounts = system::hugetlbfs_mounts();
        let Some(first) = mounts.first() else { return Err(EalError::HugetlbfsNotMounted) };
        if let Some(directory) = self.value("--huge-dir")
            && !mounts.iter().any(|mount| mount == Path::new(directory))
        {
            return Err(EalError::HugeDirectory(directory.to_owned()));
        }
        let writable = |mount: &PathBuf| nix::unistd::access(mount, nix::unistd::AccessFlags::W_OK).is_ok();
        if !mounts.iter().any(writable) {
            return Err(EalError::HugetlbfsDenied(first.clone()));
        }
        Ok(())
    }

    /// The whole command line: what the operator left open first, then his own words.
    ///
    /// * one lcore, the control core: workers are threads of ours that register ([`super::WorkerThread`]);
    /// * only the PCI devices of the configuration, so that no other NIC is taken from whoever uses it;
    /// * no files that outlive the process, a directory of our own for the others, no second control socket.
    fn complete(&self, control_core: usize, devices: &[&str]) -> Vec<String> {
        let mut line = vec![PROGRAM.to_owned()];
        let mut add = |words: &[&str]| line.extend(words.iter().map(|&word| word.to_owned()));
        if !self.has(&["-l", "-c", "--lcores", "-s", "-S"]) {
            add(&["--lcores", &format!("0@{control_core}")]);
        }
        if !self.has(&["--no-pci", "-a", "--allow", "-b", "--block"]) {
            let mut found = false;
            for device in devices {
                let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
                if let Some(address) = system::pci_address(name) {
                    found = true;
                    add(&["-a", [&address, arguments].join(",").trim_end_matches(',')]);
                }
            }
            if !found {
                add(&["--no-pci"]);
            }
        }
        if !self.no_huge && !self.in_memory {
            if self.memory_without_files() {
                add(&["--in-memory"]);
            } else if !self.has(&KEEPS_FILES) {
                add(&["--huge-unlink"]);
            }
        }
        if self.own_prefix() {
            add(&["--file-prefix", &own_prefix()]);
        }
        if !self.has(&["--telemetry", "--no-telemetry"]) {
            add(&["--no-telemetry"]);
        }
        line.extend(self.words.iter().cloned());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::of(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).expect("usable")
    }

    #[test]
    fn what_is_left_open_is_filled_in() {
        let line = arguments(&[]).complete(3, &["net_ring0", "3b:00.0,dv_flow_en=0"]);
        let prefix = own_prefix();
        let expected = [
            "fullnatd",
            "--lcores",
            "0@3",
            "-a",
            "0000:3b:00.0,dv_flow_en=0",
            "--in-memory",
            "--file-prefix",
            &prefix,
            "--no-telemetry",
        ];
        assert_eq!(line, expected);
    }

    #[test]
    fn what_the_operator_says_is_left_alone() {
        let words = ["-l", "0-3", "--no-huge", "-m", "256", "--file-prefix=mine", "--no-pci", "--telemetry"];
        let line = arguments(&words).complete(0, &["3b:00.0"]);
        assert_eq!(line[0], PROGRAM);
        assert_eq!(&line[1..], words);
    }

    #[test]
    fn files_of_hugepages_are_unlinked_unless_the_operator_manages_them() {
        let added =
            |words: &[&str], word: &str| arguments(words).complete(0, &[]).iter().any(|added| added == word);
        assert!(added(&["--huge-dir", "/mnt/huge"], "--huge-unlink"));
        assert!(!added(&["--huge-dir=/mnt/huge"], "--in-memory"));
        assert!(!added(&["--huge-dir=/mnt/huge", "--huge-unlink=never"], "--huge-unlink"));
        assert!(!added(&["--in-memory"], "--huge-unlink"));
        assert_eq!(arguments(&["--huge-dir", "/a"]).value("--huge-dir"), Some("/a"));
        assert_eq!(arguments(&["--huge-dir=/b"]).value("--huge-dir"), Some("/b"));
    }

    #[test]
    fn words_that_end_the_process_are_refused() {
        for word in ["-h", "--help", "--"] {
            assert!(matches!(Arguments::of(&[word.to_owned()]), Err(EalError::Unusable(_))), "{word}");
        }
    }
}
