"""The machine a figure was made on, and what the bench needs of it: cores, huge pages, programs."""

import contextlib
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

def _target():
    """Where cargo builds: CARGO_TARGET_DIR, its configuration, or target/."""
    done = subprocess.run(["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    return pathlib.Path(json.loads(done.stdout)["target_directory"])


TARGET = _target()
OUTPUT = TARGET / "bench"
HUGE_PAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")


def say(text):
    """Progress, on the standard error: the standard output is the table."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def describe():
    """What ratios hide and times depend on."""
    cpu = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        cpu.setdefault(key.strip(), value.strip())
    memory = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").split()[1]
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "mhz": float(cpu.get("cpu MHz", 0) or 0),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / (1 << 20), 1),
        "kernel": platform.release(),
        "dpdk": _output("pkg-config", "--modversion", "libdpdk"),
        "rustc": _output("rustc", "--version"),
        "load": os.getloadavg()[0],
    }


def commit():
    """The commit that was measured, with a `+` if files have changed since, but for those that a record changes."""
    changed = _output("git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no", "--", ".",
                      ":!benches/history.jsonl", ":!README.md", ":!docs/figures")
    return _output("git", "-C", ROOT, "rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def _output(*argv):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def cores():
    """(the core that forwards, the core for everything else): the last and the first that we may run on."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


@contextlib.contextmanager
def huge_pages(count):
    """Reserves so many huge pages of 2 MiB, or as many as there are; gives the number and takes them back after."""
    if os.geteuid() != 0:
        yield 0
        return
    before = HUGE_PAGES.read_text(encoding="ascii")
    try:
        HUGE_PAGES.write_text(str(max(count, int(before))), encoding="ascii")
        yield int(HUGE_PAGES.read_text(encoding="ascii"))
    finally:
        HUGE_PAGES.write_text(before, encoding="ascii")


def program(name):
    """A program of the release build."""
    return TARGET / "release" / name


def build_programs():
    """`fullnatd` and `fullnatctl`, as they are shipped."""
    say("building fullnatd (release)")
    subprocess.run(["cargo", "build", "--release", "--bins"], cwd=ROOT, check=True, stdout=sys.stderr)


def build_bench(name):
    """A bench target; the path of the program."""
    say(f"building the bench {name}")
    done = subprocess.run(
        ["cargo", "bench", "--no-default-features", "--bench", name, "--no-run", "--message-format=json"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == name:
            return message["executable"]
    raise RuntimeError(f"cargo built no program for the bench {name}")
