"""Network namespaces, the links between them and the processes inside.

A `Namespace` owns its processes: deleting it ends them first. Names carry the pid of the test run, so that several
runs stand side by side and what a killed run left behind is recognised and removed by the next one.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def wait_until(condition, seconds, what):
    """Polls until `condition()` is true and returns its value; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def family_of(address):
    """The socket family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def die_with_parent():
    """For a process between fork and exec: it is killed when the one that started it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def remove_leftovers():
    """Deletes the namespaces of runs whose process is gone."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name = line.split()[0]
        match = re.fullmatch(r"fn-(\d+)-\w+", name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            subprocess.run(["ip", "netns", "delete", name], check=False)


class Namespace:
    """One network namespace with `lo` up and no address anywhere else."""

    def __init__(self, role, ipv6=True):
        self.role = role
        self.name = f"fn-{os.getpid()}-{role}"
        self.processes = []
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.sysctl("net.ipv6.conf.default.disable_ipv6", 0 if ipv6 else 1)
        self.sysctl("net.ipv6.conf.all.disable_ipv6", 0 if ipv6 else 1)
        for key, value in {
            "net.ipv6.conf.default.accept_ra": 0,
            "net.ipv6.conf.default.accept_dad": 0,
            "net.ipv6.conf.default.router_solicitations": 0,
            "net.ipv4.conf.default.rp_filter": 0,
            "net.ipv4.conf.all.rp_filter": 0,
        }.items():
            self.sysctl(key, value)
        self.run("ip", "link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is in the namespace; sockets made there stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _setns(there)
            yield
        finally:
            _setns(home)
            os.close(there)
            os.close(home)

    def sysctl(self, key, value):
        with self.entered(), open("/proc/sys/" + key.replace(".", "/"), "w", encoding="ascii") as file:
            file.write(str(value))

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0, timeout=5.0):
        with self.entered():
            made = socket.socket(family, kind, protocol)
        made.settimeout(timeout)
        return made

    def connect(self, host, port, timeout=5.0, source=None):
        """A TCP connection from this namespace."""
        made = self.socket(family_of(host), timeout=timeout)
        try:
            if source:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind(source)
            made.connect((host, port))
        except BaseException:
            made.close()
            raise
        return made

    def run(self, *argv, timeout=15, check=True, **options):
        """Runs a command to its end; its output as text."""
        with self.entered():
            done = subprocess.run(
                [str(a) for a in argv], capture_output=True, text=True, timeout=timeout, check=False, **options
            )
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.role}: {' '.join(map(str, argv))} -> {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(self, *argv, **options):
        """Starts a process that lives no longer than the namespace (or the test run)."""
        with self.entered():
            process = subprocess.Popen([str(a) for a in argv], preexec_fn=die_with_parent, **options)
        self.processes.append(process)
        return process

    def end(self, process):
        """Ends a process that was started here, at once."""
        process.kill()
        process.wait()
        self.processes.remove(process)

    def nft(self, text):
        self.run("nft", "-f", "-", input=text)

    def add_address(self, interface, *addresses, on_request=False):
        """`on_request`: sockets have them as source only if they ask for them."""
        for address in addresses:
            options = ["nodad"] if ":" in address else []
            if on_request:
                options += ["preferred_lft", "0"]
            self.run("ip", "address", "replace", address, "dev", interface, *options)

    def mac(self, interface):
        with self.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
            probe.bind((interface, 0))
            return probe.getsockname()[4].hex(":")

    def counters(self, *names):
        """Counters of the kernel's stacks, as nstat calls them."""
        table = dict(line.split()[:2] for line in self.run("nstat", "-asz").stdout.splitlines()[1:])
        return {name: int(table.get(name, 0)) for name in names}

    def delete(self):
        for process in self.processes:
            stop(process, seconds=2)
        self.processes.clear()
        subprocess.run(["ip", "netns", "delete", self.name], check=False)


def stop(process, seconds):
    """Ends a process by SIGTERM, then SIGKILL; returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def link(left, left_name, right, right_name, mtu=1500):
    """A veth pair between two namespaces, both ends up."""
    left.run("ip", "link", "add", left_name, "mtu", mtu, "type", "veth", "peer", "name", right_name,
             "mtu", mtu, "netns", right.name)
    left.run("ip", "link", "set", "dev", left_name, "up")
    right.run("ip", "link", "set", "dev", right_name, "up")


def set_offloads(namespace, interface, on):
    """Checksum, segmentation and receive offloads of one veth end."""
    value = "on" if on else "off"
    features = [part for name in ("rx", "tx", "tso", "gso", "gro", "sg") for part in (name, value)]
    namespace.run("ethtool", "-K", interface, *features)
