"""The real servers' side of TOA: `fullnat-toa` on a cgroup of the test's own, and servers that are started inside it.

Never the machine's root cgroup: the programs see the sockets of processes that `inside` starts, and no others.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import platform
import re
import struct
import subprocess
import tempfile

from .gateway import binary
from .netns import wait_until

PREFIX = "fn"
LACKING = 3
"""exit status where the machine lacks what the receiver needs"""


BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]
BPF_OBJ_GET, BPF_PROG_GET_FD_BY_ID, BPF_ENABLE_STATS = 7, 13, 32
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def _bpf(command, attributes):
    """A system call bpf(2) that gives a descriptor."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    fd = _libc.syscall(BPF_SYSCALL, command, buffer, len(attributes))
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    try:
        yield fd
    finally:
        os.close(fd)


def kernel_statistics():
    """The kernel measures how long each eBPF program runs, as with `kernel.bpf_stats_enabled`, as long as this is open."""
    return _bpf(BPF_ENABLE_STATS, struct.pack("I", 0))


def _told_of(fd, name):
    """What `/proc` says of a descriptor of bpf(2)."""
    text = pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    return int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[1])


class Unavailable(Exception):
    """This machine cannot have a receiver; the sentence says what is missing."""


def cgroup_root():
    """Where the cgroup2 hierarchy is mounted."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        if after.startswith("cgroup2 ") and before.split()[3] == "/":
            return pathlib.Path(before.split()[4])
    raise Unavailable("no cgroup2 file system is mounted")


def remove_leftovers():
    """What killed runs left: file systems with pins, and cgroups, of processes that are gone."""
    def orphaned(name):
        match = re.fullmatch(rf"{PREFIX}-(\d+)-[\w-]+", name)
        return match and not os.path.exists(f"/proc/{match[1]}")

    for pins in filter(lambda path: orphaned(path.name), pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}-*")):
        subprocess.run(["umount", pins], check=False, capture_output=True)
        pins.rmdir()
    try:
        for cgroup in filter(lambda path: orphaned(path.name), cgroup_root().glob(f"{PREFIX}-*")):
            cgroup.rmdir()
    except (Unavailable, OSError):
        pass


class Receiver:
    """A cgroup, a bpf file system for pins, and the program that knows both."""

    def __init__(self, role="receiver"):
        name = f"{PREFIX}-{os.getpid()}-{role}"
        self.cgroup = cgroup_root() / name
        self.pins = pathlib.Path(tempfile.gettempdir()) / name
        try:
            self.cgroup.mkdir()
            self.pins.mkdir()
            subprocess.run(["mount", "-t", "bpf", "bpf", self.pins], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise Unavailable(getattr(error, "stderr", None) or str(error)) from error

    def run(self, *words, inner=(), check=True):
        """`fullnat-toa` with these words; its output."""
        argv = [*inner, binary("fullnat-toa"), "--pin", self.pins / "toa", *words]
        try:
            done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=20, check=False)
        except FileNotFoundError as missing:
            raise Unavailable(f"{missing.filename} is not built (feature toa-receiver)") from missing
        if done.returncode == LACKING and check:
            raise Unavailable(done.stderr.strip().splitlines()[-1])
        if check and done.returncode != 0:
            raise RuntimeError(f"fullnat-toa {' '.join(map(str, words))} -> {done.returncode}\n{done.stderr}")
        return done

    def attach(self, *options):
        return self.run("attach", "--cgroup", self.cgroup, *options)

    def detach(self):
        return self.run("detach")

    def status(self):
        return json.loads(self.run("--json", "status").stdout)

    def counts(self):
        return self.status()["counts"]

    def connections(self):
        """Clients of the live connections."""
        return json.loads(self.run("--json", "status", "--connections").stdout)

    def verified(self, program):
        """How many instructions the kernel followed until it took an attached program."""
        path = ctypes.create_string_buffer(str(self.pins / "toa" / program).encode())
        with _bpf(BPF_OBJ_GET, struct.pack("QII", ctypes.addressof(path), 0, 0)) as link:
            number = _told_of(link, "prog_id")
        with _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("III", number, 0, 0)) as loaded:
            return _told_of(loaded, "verified_insns")

    def inside(self, *argv):
        """A command line that runs another one in the cgroup, its sockets with it."""
        return ["sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', self.cgroup, *argv]

    def close(self):
        """Takes everything away; the processes inside have ended before."""
        if self.pins.is_mount():
            with contextlib.suppress(Unavailable):
                self.run("detach", check=False)
            subprocess.run(["umount", self.pins], check=False)
        if self.pins.exists():
            self.pins.rmdir()
        if self.cgroup.exists():
            # A process that has ended leaves its cgroup a moment later.
            wait_until(lambda: not (self.cgroup / "cgroup.procs").read_text(), 5, f"{self.cgroup} to be empty")
            wait_until(self._removed, 5, f"{self.cgroup} to go")

    def _removed(self):
        try:
            self.cgroup.rmdir()
        except OSError:
            return False
        return True
