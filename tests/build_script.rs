//! What the build script says: where something is missing one sentence that names what to install, else how DPDK is
//! linked. The script itself runs, as cargo has compiled it for this very test, in an environment where a thing cannot be
//! found.
#![cfg(feature = "dpdk")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// The youngest of cargo's compiled build scripts of this package, beside this test's own executable.
fn build_script() -> PathBuf {
    let own = std::env::current_exe().expect("this executable");
    let profile = own.parent().and_then(|deps| deps.parent()).expect("a folder of cargo's");
    let folders = std::fs::read_dir(profile.join("build")).expect("build scripts");
    let scripts = folders
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("fullnat-"))
        })
        .map(|folder| folder.join("build-script-build"))
        .filter(|script| script.is_file());
    let modified = |script: &PathBuf| script.metadata().and_then(|data| data.modified()).expect("a time");
    scripts.max_by_key(modified).expect("this package's build script")
}

/// A number that no other test of this program has.
fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn run(environment: &[(&str, &str)]) -> Output {
    run_and_read(environment, "none").0
}

/// Its output, and a file that it wrote.
fn run_and_read(environment: &[(&str, &str)], file: &str) -> (Output, String) {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let out = std::env::temp_dir().join(format!("fullnat-build-script-{}-{}", std::process::id(), next()));
    std::fs::create_dir_all(&out).expect("a folder");
    let output = Command::new(build_script())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("FULLNAT_DPDK")
        .env("OUT_DIR", &out)
        .envs([("CARGO_FEATURE_DPDK", "1"), ("OPT_LEVEL", "0"), ("DEBUG", "false")])
        .envs([("TARGET", &target), ("HOST", &target)])
        .env("CARGO_CFG_TARGET_ARCH", std::env::consts::ARCH)
        .envs(environment.iter().copied())
        .output()
        .expect("started");
    let written = std::fs::read_to_string(out.join(file)).unwrap_or_default();
    std::fs::remove_dir_all(&out).expect("removed");
    (output, written)
}

/// The only error that the script reports.
fn refusal(environment: &[(&str, &str)]) -> String {
    let output = run(environment);
    assert!(!output.status.success(), "the build goes on with {environment:?}");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let errors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("cargo::error=")).collect();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(errors.len() == 1 && !complaint.contains("panicked"), "{said}{complaint}");
    errors[0].to_owned()
}

#[test]
fn with_everything_there_the_script_succeeds() {
    let output = run(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn without_pkg_config_its_package_is_named() {
    let sentence = refusal(&[("PKG_CONFIG", "/nonexistent/pkg-config")]);
    assert!(
        sentence.starts_with("pkg-config was not found") && sentence.ends_with("apt-get install pkg-config)")
    );
}

#[test]
fn without_libdpdk_its_package_is_named() {
    let nowhere = [("PKG_CONFIG_LIBDIR", "/nonexistent"), ("PKG_CONFIG_PATH", "")];
    let sentence = refusal(&nowhere);
    assert!(sentence.starts_with("libdpdk 22.11 or later was not found"), "{sentence}");
    assert!(sentence.contains("apt-get install libdpdk-dev") && sentence.contains("--no-default-features"));
}

#[test]
fn without_libclang_its_package_is_named() {
    let sentence = refusal(&[("LIBCLANG_PATH", "/nonexistent")]);
    assert!(sentence.starts_with("libclang was not found"), "{sentence}");
    assert!(sentence.contains("apt-get install libclang-dev") && sentence.contains("LIBCLANG_PATH"));
}

#[test]
fn without_a_c_compiler_its_package_is_named() {
    let sentence = refusal(&[("CC", "/nonexistent/cc")]);
    assert!(
        sentence.contains("a C compiler is needed") && sentence.contains("apt-get install gcc"),
        "{sentence}"
    );
}

/// The receiver is for real servers: the gateway is built without its programs where they cannot be compiled.
#[test]
fn without_a_clang_for_bpf_the_build_goes_on_and_says_so() {
    for clang in ["/nonexistent/clang", "/bin/false"] {
        let environment = [("CARGO_FEATURE_TOA_RECEIVER", "1"), ("CLANG", clang)];
        let (output, table) = run_and_read(&environment, "toa_objects.rs");
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let warnings: Vec<&str> =
            said.lines().filter_map(|line| line.strip_prefix("cargo::warning=")).collect();
        assert_eq!(warnings.len(), 1, "{said}");
        assert!(warnings[0].starts_with("fullnat-toa is built without its eBPF programs"), "{said}");
        assert!(
            warnings[0].contains("apt-get install clang libbpf-dev") && warnings[0].contains(clang),
            "{said}"
        );
        let empty = "constOBJECTS:&[Object]=&[];constUDP_OBJECTS:&[Object]=&[];";
        assert_eq!(table.split_whitespace().collect::<String>(), empty);
    }
}

#[test]
fn with_clang_there_are_objects_for_tcp_and_udp_the_richest_first() {
    let environment = [("CARGO_FEATURE_TOA_RECEIVER", "1")];
    let (output, table) = run_and_read(&environment, "toa_objects.rs");
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("cargo::warning"));
    let objects: Vec<&str> = table.lines().filter(|line| line.trim_start().starts_with("Object")).collect();
    assert_eq!(objects.len(), 3 + 2, "{table}");
    for (at, richest) in [(0, "toa-full.o"), (3, "uoa-full.o")] {
        assert!(objects[at].contains("lacks: &[]") && objects[at].contains(richest), "{table}");
    }
}

/// What the linker is told for `fullnatd` alone.
fn told_for_fullnatd(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.strip_prefix("cargo::rustc-link-arg-bin=fullnatd=")).collect()
}

fn said(environment: &[(&str, &str)]) -> String {
    let output = run(environment);
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn an_optimised_fullnatd_has_dpdk_and_its_drivers_within() {
    for environment in
        [[("PROFILE", "release"), ("OPT_LEVEL", "3")], [("PROFILE", "debug"), ("FULLNAT_DPDK", "static")]]
    {
        let said = said(&environment);
        let told = told_for_fullnatd(&said);
        let at = |argument: &str| told.iter().position(|told| *told == argument).expect(argument);
        let whole = at("-Wl,--whole-archive")..at("-Wl,--no-whole-archive");
        for archive in
            ["net_pcap", "net_af_packet", "net_ice", "bus_vdev", "bus_pci", "mempool_ring", "eal", "ethdev"]
        {
            assert!(whole.contains(&at(&format!("-l:librte_{archive}.a"))), "{archive}");
        }
        assert!(
            at("-l:librte_common_mlx5.a") > whole.end && at("-lpcap") > whole.end && at("-lnuma") > whole.end
        );
        assert!(!told.iter().any(|argument| argument.contains("crypto_") || argument.contains("event_")));
        assert!(said.contains("cargo::rustc-cfg=dpdk_within") && !said.contains("cargo::warning"));
    }
}

#[test]
fn a_debug_build_one_that_is_told_so_and_one_for_another_processor_load_dpdk() {
    for environment in [
        &[("PROFILE", "debug")][..],
        &[("PROFILE", "release"), ("FULLNAT_DPDK", "shared")],
        &[("PROFILE", "release"), ("CARGO_CFG_TARGET_ARCH", "aarch64")],
    ] {
        let said = said(environment);
        assert_eq!(told_for_fullnatd(&said), [""; 0]);
        assert!(said.contains("cargo::rustc-link-lib=dylib=rte_eal"));
        assert!(!said.contains("cargo::rustc-cfg=dpdk_within") && !said.contains("cargo::warning"));
    }
}

/// A C compiler that finds no archive.
const NO_ARCHIVES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cc-without-archives");

#[test]
fn without_archives_dpdk_is_loaded_and_the_build_says_what_that_costs() {
    let said = said(&[("PROFILE", "release"), ("CC", NO_ARCHIVES)]);
    assert_eq!(told_for_fullnatd(&said), [""; 0]);
    let warnings: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("cargo::warning=")).collect();
    assert!(
        warnings.len() == 1
            && warnings[0].starts_with("DPDK is not installed as archives")
            && warnings[0].contains("costs about a tenth of its packet rate"),
        "{said}"
    );
}

/// As DPDK's own build installs it: `/usr/local/lib` is no folder that C compilers name.
#[test]
fn archives_are_found_where_pkg_config_says_that_dpdk_is() {
    const PKG_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pkg-config-elsewhere");
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/dpdk");
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(format!("{folder}/librte_eal.a"), "").expect("a file");
    let elsewhere = [("CC", NO_ARCHIVES), ("PKG_CONFIG", PKG_CONFIG), ("DPDK_IS_IN", folder)];
    let said = said(&[&[("PROFILE", "release")][..], &elsewhere].concat());
    assert!(
        told_for_fullnatd(&said).contains(&"-l:librte_eal.a") && !said.contains("cargo::warning"),
        "{said}"
    );
    assert!(said.contains(&format!("cargo::rustc-link-search=native={folder}\n")), "{said}");
}

#[test]
fn linking_that_cannot_be_is_refused() {
    let sentence = refusal(&[("FULLNAT_DPDK", "static"), ("CC", NO_ARCHIVES)]);
    assert!(
        sentence.contains("not installed as archives") && sentence.contains("leave FULLNAT_DPDK out"),
        "{sentence}"
    );
    let sentence = refusal(&[("FULLNAT_DPDK", "dynamic")]);
    assert!(
        sentence.contains("FULLNAT_DPDK=dynamic") && sentence.contains("`static` or `shared`"),
        "{sentence}"
    );
}
