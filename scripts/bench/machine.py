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
CACHES = pathlib.Path("/proc/sys/vm/drop_caches")
AUTOGROUP = pathlib.Path("/proc/self/autogroup")
# The parent of the kernel's threads.
KTHREADD = 2


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


def others_seconds():
    """CPU seconds that programs have had so far which this one did not start."""
    tick = os.sysconf("SC_CLK_TCK")
    return sum(ticks for _, _, ticks in _not_ours(_programs(), os.getpid())) / tick


def _programs():
    """(process, its parent, clock ticks of it and its ended children)"""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything.
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            yield int(entry.name), int(fields[1]), sum(map(int, fields[11:15]))


def _not_ours(programs, root):
    """Without the descendants of `root`, and without the kernel's threads, which work for whoever sends packets."""
    programs = list(programs)
    ours = {root, KTHREADD}
    while more := {process for process, parent, _ in programs if parent in ours} - ours:
        ours |= more
    return [program for program in programs if program[0] not in ours]


@contextlib.contextmanager
def foremost():
    """This session's programs come before those of others. The scheduler first divides the cores among sessions, if it
    groups them, and niceness counts within one only: a build elsewhere, however nice, would take half of a core."""
    if not AUTOGROUP.exists() or os.geteuid() != 0:
        yield
        return
    before = AUTOGROUP.read_text(encoding="ascii").split()[-1]
    AUTOGROUP.write_text("-19", encoding="ascii")
    try:
        yield
    finally:
        AUTOGROUP.write_text(before, encoding="ascii")


@contextlib.contextmanager
def huge_pages(count):
    """Reserves so many huge pages of 2 MiB, or as many as there are; gives the number and takes them back after.

    The kernel reserves from what is free, not from what it holds of files: if that is too little, it lets go of those.
    """
    if os.geteuid() != 0:
        yield 0
        return
    before = HUGE_PAGES.read_text(encoding="ascii")
    wanted = max(count, int(before))
    try:
        if _reserve(wanted) < wanted:
            os.sync()
            CACHES.write_text("1", encoding="ascii")
        yield _reserve(wanted)
    finally:
        HUGE_PAGES.write_text(before, encoding="ascii")


def _reserve(count):
    HUGE_PAGES.write_text(str(count), encoding="ascii")
    return int(HUGE_PAGES.read_text(encoding="ascii"))


# All that measures and is measured, in one build: what they share is compiled once.
BUILD = ["cargo", "build", "--release", "--bins", "--example", "engine"]


def program(name):
    """A program of the release build."""
    return TARGET / "release" / name


def engine(target=TARGET):
    """The bench of the engine, of the release build in a target directory."""
    return target / "release" / "examples" / "engine"


def build():
    """The programs as they are shipped, and the bench of the engine."""
    say("building fullnatd and the bench of its engine (release)")
    subprocess.run(BUILD, cwd=ROOT, check=True, stdout=sys.stderr)
