//! Binds libdpdk when the feature `dpdk` is on: compiles the shim, makes the bindings, links the libraries.
//!
//! The raw answer of `pkg-config --cflags libdpdk` goes to the C compiler and to bindgen: it carries
//! `-include rte_config.h` and `-march=...`, which decide over layouts and which the crate `pkg-config` leaves out.
//! An optimised `fullnatd` has DPDK and its drivers within; see [`link`].
//!
//! With the feature `toa-receiver` clang compiles the real server's eBPF programs. Where it cannot, a warning says so, all
//! the rest is built, and `fullnat-toa` says so too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Functions of DPDK that are real symbols; its inline functions are `shim_*`.
const FUNCTIONS: &[&str] = &[
    "shim_.*",
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_has_hugepages",
    "rte_eal_init",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_hash_update",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_queue_setup",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_pktmbuf_pool_create",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_version",
];

/// Structures whose fields Rust reads or writes, all of the control side.
const TYPES: &[&str] = &[
    "rte_eth_conf",
    "rte_eth_dev_info",
    "rte_eth_rss_conf",
    "rte_eth_rss_reta_entry64",
    "rte_eth_rxconf",
    "rte_eth_stats",
    "rte_eth_txconf",
    "rte_ether_addr",
];

/// Structures only ever held by pointer.
const OPAQUE: &[&str] = &[
    "rte_mbuf",
    "rte_mempool",
    "rte_device",
    // packed inside aligned: bindgen cannot lay them out
    "rte_arp_ipv4",
    "rte_arp_hdr",
    "rte_gtp_psc_generic_hdr",
    "rte_l2tpv2_combined_msg_hdr",
];

/// How the names of the drivers begin that a gateway may need: of buses, of memory pools, of ports.
const DRIVERS: [&str; 3] = ["bus_", "mempool_", "net_"];

/// The variable that says whether `fullnatd` has DPDK within (`static`) or loads it (`shared`).
const LINKING: &str = "FULLNAT_DPDK";

/// The constants of `ffi/dpdk.h`.
const CONSTANTS: &[&str] = &[
    "MBUF_.*",
    "[RT]X_OFFLOAD_.*",
    "RSS_.*",
    "MQ_RX_.*",
    "RETA_.*",
    "ETHER_.*",
    "MEMPOOL_.*",
    "SOCKET_ANY",
    "LOG_.*",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=ffi");
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "LIBCLANG_PATH", "CLANG", LINKING] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if std::env::var_os("CARGO_FEATURE_TOA_RECEIVER").is_some() {
        compile_receiver();
    }
    if std::env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    let cflags = pkg_config(&["--cflags"]);
    link();
    // First: what misses libclang shall read so, not the C compiler's settings.
    bind(&cflags);
    compile_shim(&cflags);
}

/// Ends the build with one sentence.
fn fail(sentence: &str) -> ! {
    println!("cargo::error={sentence}");
    exit(1)
}

/// The compilations of the receiver's programs, the richest first: name, definitions, what it lacks against the first.
const RECEIVERS: [(&str, &[&str], &[&str]); 3] = [
    ("toa-full", &["-DWITH_MPTCP", "-DWITH_CONNECTIONS"], &[]),
    ("toa-listing", &["-DWITH_CONNECTIONS"], &[NO_MPTCP]),
    ("toa-plain", &[], &[NO_MPTCP, NO_LISTING]),
];
/// The same of the programs for UDP.
const UDP_RECEIVERS: [(&str, &[&str], &[&str]); 2] =
    [("uoa-full", &["-DWITH_NETNS"], &[]), ("uoa-plain", &[], &[NO_NETNS])];
const NO_NETNS: &str =
    "telling apart UDP servers of one port in several network namespaces, all bound to any address";
const NO_MPTCP: &str = "the clients of MPTCP connections, which show the gateway (Linux 5.19)";
const NO_LISTING: &str = "`status --connections` (CONFIG_DEBUG_INFO_BTF)";

/// Writes the tables that `src/receiver/object.rs` includes; empty ones where clang cannot compile for bpf.
fn compile_receiver() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let tables =
        [("OBJECTS", "ffi/toa.bpf.c", &RECEIVERS[..]), ("UDP_OBJECTS", "ffi/uoa.bpf.c", &UDP_RECEIVERS[..])];
    let compiled: Result<Vec<String>, String> =
        tables.iter().map(|(_, source, compilations)| compile_programs(source, compilations, &out)).collect();
    let entries = compiled.unwrap_or_else(|reason| {
        println!(
            "cargo::warning=fullnat-toa is built without its eBPF programs and will say so: clang (with its bpf \
             target), libbpf-dev and linux-libc-dev are needed (Debian, Ubuntu: apt-get install clang libbpf-dev \
             linux-libc-dev): {reason}"
        );
        vec![String::new(); tables.len()]
    });
    let written: String = tables
        .iter()
        .zip(entries)
        .map(|((name, ..), entries)| format!("const {name}: &[Object] = &[\n{entries}];\n"))
        .collect();
    std::fs::write(out.join("toa_objects.rs"), written).expect("OUT_DIR is writable");
}

/// The entries of one table, or why there are none.
fn compile_programs(
    source: &str,
    compilations: &[(&str, &[&str], &[&str])],
    out: &Path,
) -> Result<String, String> {
    let mut entries = String::new();
    for (name, definitions, lacks) in compilations {
        let object = out.join(name).with_extension("o");
        compile_program(source, definitions, &object)?;
        writeln!(
            entries,
            "    Object {{ lacks: &{lacks:?}, bytes: aya::include_bytes_aligned!({object:?}) }},"
        )
        .expect("memory");
    }
    Ok(entries)
}

/// clang, told as little as the kernel needs: its BTF comes from `-g`, and `v2` is what Linux 5.10 takes everywhere.
fn compile_program(source: &str, definitions: &[&str], object: &Path) -> Result<(), String> {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let output = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Wextra", "-Werror"])
        // Debian keeps <asm/types.h> there, and clang looks for it only when it compiles for the machine itself.
        .arg(format!("-I/usr/include/{architecture}-linux-gnu"))
        .args(definitions)
        .args(["-c", source, "-o"])
        .arg(object)
        .output()
        .map_err(|error| format!("{clang}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = complaint.lines().filter(|line| line.contains("error")).take(2).collect();
    Err(format!("{clang}: {}", lines.join("; ")))
}

/// What `pkg-config` says of libdpdk, one word each.
fn pkg_config(question: &[&str]) -> Vec<String> {
    let program = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = match Command::new(&program).args(question).arg("libdpdk >= 22.11").output() {
        Ok(output) => output,
        Err(_) => fail("pkg-config was not found: install it (Debian, Ubuntu: apt-get install pkg-config)"),
    };
    if !output.status.success() {
        fail(
            "libdpdk 22.11 or later was not found by pkg-config: install it (Debian, Ubuntu: apt-get install \
             libdpdk-dev), or build without the packet drivers by --no-default-features",
        );
    }
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn compile_shim(cflags: &[String]) {
    let mut build = cc::Build::new();
    build.file("ffi/shim.c").include("ffi").opt_level(3).warnings(false);
    // DPDK marks as experimental what later releases have as stable.
    build.define("ALLOW_EXPERIMENTAL_API", None);
    for flag in cflags {
        build.flag(flag);
    }
    if let Err(error) = build.try_compile("fullnat_shim") {
        fail(&format!(
            "ffi/shim.c did not compile; a C compiler is needed (Debian, Ubuntu: apt-get install gcc libc6-dev): {}",
            error.to_string().replace('\n', " ")
        ));
    }
}

fn bind(cflags: &[String]) {
    // bindgen loads libclang at run time and panics without it.
    std::panic::set_hook(Box::new(|_| ()));
    if std::panic::catch_unwind(bindgen::clang_version).is_err() {
        fail(
            "libclang was not found, which bindgen needs to read DPDK's headers: install it (Debian, Ubuntu: \
             apt-get install libclang-dev) or name its directory in LIBCLANG_PATH",
        );
    }
    let _ = std::panic::take_hook();

    let mut builder = bindgen::Builder::default()
        .header("ffi/dpdk.h")
        .clang_args(cflags)
        .clang_arg("-DALLOW_EXPERIMENTAL_API")
        .allowlist_recursively(true)
        .prepend_enum_name(false)
        .layout_tests(false)
        .derive_default(true)
        .generate_comments(false)
        .use_core();
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    for name in CONSTANTS {
        builder = builder.allowlist_var(name);
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => fail(&format!(
            "DPDK's headers could not be read; are libclang's own headers installed (Debian, Ubuntu: apt-get install \
             libclang-dev)? {}",
            error.to_string().replace('\n', " ")
        )),
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bindings.write_to_file(out.join("dpdk.rs")).expect("OUT_DIR is writable");
}

/// Links what is used and no more: `fullnatctl` must run where DPDK is not installed.
///
/// An optimised `fullnatd` has DPDK and its drivers within: what they keep for each thread is an address then, and a call
/// into another library otherwise, for every buffer that a driver frees. A debug build loads the libraries that the
/// distribution has installed, the drivers as plug-ins. [`LINKING`] asks for either.
///
/// The shared libraries stand before the archives, for all other programs. LLD, which Rust takes on x86-64, leaves them
/// out of `fullnatd` again, as nothing comes from them in the end; GNU ld would not.
fn link() {
    println!("cargo::rustc-check-cfg=cfg(dpdk_within)");
    println!("cargo::rustc-link-arg=-Wl,--as-needed");
    let words = pkg_config(&["--libs"]);
    let installed = Installed::of(&words);
    for directory in &installed.directories {
        println!("cargo::rustc-link-search=native={directory}");
    }
    for library in words.iter().filter_map(|word| word.strip_prefix("-l")) {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    if is_dpdk_within(&installed) {
        println!("cargo::rustc-cfg=dpdk_within");
        for argument in archives(&pkg_config(&["--static", "--libs"]), &installed) {
            println!("cargo::rustc-link-arg-bin=fullnatd={argument}");
        }
    }
}

/// Whether `fullnatd` is to have DPDK within. Not every distribution has it as archives, and only on x86-64 is LLD what
/// Rust links with.
fn is_dpdk_within(installed: &Installed<'_>) -> bool {
    let there = installed.has("librte_eal.a");
    let is = |variable, value| std::env::var(variable).is_ok_and(|found| found == value);
    match std::env::var(LINKING).as_deref() {
        Ok("static") if !there => fail(&format!(
            "{LINKING}=static, but DPDK is not installed as archives (librte_*.a): its own build installs them, some \
             distributions leave them out; leave {LINKING} out to load it as shared libraries"
        )),
        Ok("static") => true,
        Ok("shared") => false,
        Ok(other) => fail(&format!("{LINKING}={other}: say `static` or `shared`, or leave it out")),
        Err(_) if is("PROFILE", "debug") || !is("CARGO_CFG_TARGET_ARCH", "x86_64") => false,
        Err(_) if !there => {
            println!(
                "cargo::warning=DPDK is not installed as archives (librte_*.a), so fullnatd will load it as shared \
                 libraries, which costs about a tenth of its packet rate; {LINKING}=shared accepts that"
            );
            false
        }
        Err(_) => true,
    }
}

/// What the linker is told to put DPDK into a program: of the drivers and the libraries all, because they announce
/// themselves to the EAL before `main`; of what some drivers share what these need; of all other libraries the shared ones.
fn archives(words: &[String], installed: &Installed<'_>) -> Vec<String> {
    let archives = |begins: &[&str]| {
        let of_these = |name: &&str| begins.iter().any(|begin| name.starts_with(begin));
        let named = words.iter().filter_map(|word| word.strip_prefix("-l:librte_"));
        named.filter(of_these).map(|name| format!("-l:librte_{name}")).collect::<Vec<_>>()
    };
    let libraries = words.iter().filter_map(|word| word.strip_prefix("-lrte_"));
    let others: BTreeSet<&str> = words.iter().filter_map(|word| word.strip_prefix("-l")).collect();
    let others = others.into_iter().filter(|name| !name.starts_with(':') && !name.starts_with("rte_"));

    let mut arguments = vec!["-Wl,--whole-archive".to_owned()];
    arguments.extend(archives(&DRIVERS));
    arguments.extend(libraries.map(|name| format!("-l:librte_{name}.a")));
    arguments.push("-Wl,--no-whole-archive".to_owned());
    arguments.extend(archives(&["common_"]));
    // pkg-config names as well what those libraries were linked with, whose development packages may be missing.
    let there = others.filter(|name| installed.has(&format!("lib{name}.so")));
    arguments.extend(there.map(|name| format!("-l{name}")));
    arguments
}

/// Where the linker finds libraries.
struct Installed<'a> {
    /// those that pkg-config names
    directories: Vec<&'a str>,
    /// who knows the usual ones
    compiler: cc::Tool,
}

impl Installed<'_> {
    fn of(words: &[String]) -> Installed<'_> {
        let directories = words.iter().filter_map(|word| word.strip_prefix("-L")).collect();
        Installed { directories, compiler: cc::Build::new().get_compiler() }
    }

    /// Whether a file is there.
    fn has(&self, file: &str) -> bool {
        if self.directories.iter().any(|directory| Path::new(directory).join(file).exists()) {
            return true;
        }
        let output = self.compiler.to_command().arg(format!("-print-file-name={file}")).output();
        output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute())
    }
}
