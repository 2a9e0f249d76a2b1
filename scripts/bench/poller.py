"""Two processes that poll the same core, one at a time: the other is stopped by a signal.

Packets are counted by the processes themselves, time is what the polling thread had of the core
(`/proc/PID/task/TID/schedstat`): whoever else runs on the machine takes cache lines and memory bandwidth from both,
but no time that is counted.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from machine import ROOT, program

sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from rig.control import Control, _UnixConnection  # noqa: E402
from rig.netns import die_with_parent, wait_until  # noqa: E402


def unix_connection(path, timeout=60):
    """An HTTP connection that stays open."""
    return _UnixConnection(path, timeout)


# Messages of neighbours that came to nothing. The other drops with a neighbour in their name are clients' packets.
MESSAGES = {"arp_malformed", "arp_not_for_us", "nd_malformed", "nd_not_for_us", "neighbour_limited"}


class Poller:
    """A process with one polling thread."""

    THREAD = None

    def __init__(self, log):
        self.log = pathlib.Path(log)
        self.process = None

    def _spawn(self, argv, stdin=subprocess.DEVNULL, namespace=None):
        """In a network namespace if one is given, which has its own sysfs then."""
        entered = ["ip", "netns", "exec", namespace.name] if namespace else []
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([*entered, *(str(a) for a in argv)], stdin=stdin, stdout=log,
                                            stderr=subprocess.STDOUT, preexec_fn=die_with_parent)

    def _await(self, ready):
        """Waits until it is ready; one that never is does not stay."""
        try:
            wait_until(ready, 60, lambda: f"{self.log.stem} is not ready\n{self.output()[-2000:]}")
        except BaseException:
            Poller.stop(self)
            raise

    def output(self):
        return self.log.read_text(errors="replace")

    def check_alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args[0]} ended with {self.process.returncode}\n{self.output()[-2000:]}")

    def _thread(self):
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            if re.fullmatch(self.THREAD, (task / "comm").read_text().strip()):
                return task
        raise RuntimeError(f"no thread {self.THREAD}:\n{self.output()[-2000:]}")

    def core_seconds(self):
        """Seconds the polling thread has had of its core."""
        return int((self._thread() / "schedstat").read_text().split()[0]) / 1e9

    def hasten(self):
        """Others on the core wait: for two pollers that must keep pace with each other."""
        os.setpriority(os.PRIO_PROCESS, int(self._thread().name), -10)

    def packets(self):
        """Packets received so far."""
        raise NotImplementedError

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def rate(self, seconds):
        """Packets per second of core time; the caches get a fifth of the time before that to warm up."""
        self.resume()
        try:
            time.sleep(seconds / 5)
            packets, core = self.packets(), self.core_seconds()
            time.sleep(seconds)
            had = self.core_seconds() - core
            if not had:
                raise RuntimeError(f"{self.log.stem} had nothing of its core for {seconds} s: who else polls there?")
            return (self.packets() - packets) / had
        finally:
            self.pause()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Gateway(Poller):
    """fullnatd with one worker."""

    THREAD = r"fullnat-w0"

    def __init__(self, directory, toml, name="fullnatd", namespace=None):
        super().__init__(pathlib.Path(directory) / f"{name}.log")
        self.socket = pathlib.Path(directory) / f"{name}.sock"
        config = pathlib.Path(directory) / f"{name}.toml"
        config.write_text(toml.replace("@SOCKET@", str(self.socket)))
        self.control = Control(self.socket, timeout=60)
        self._spawn([program("fullnatd"), "--config", config], namespace=namespace)
        self._await(self._ready)

    def _ready(self):
        self.check_alive()
        return "ready" in self.output().splitlines() and self.control.alive()

    def worker(self):
        """The counters of the worker."""
        return self.control.get("/v1/workers")[0]

    def packets(self):
        return self.worker()["rx_packets"]

    def while_paused(self, question):
        """What a question gives that a paused gateway is woken for."""
        self.resume()
        try:
            return question()
        finally:
            self.pause()

    def lost(self):
        """Packets dropped so far; ARP and ND messages, which are the gateway's own and end there by right, are none."""
        return lost(self.control.get("/v1/drops"))


def lost(drops):
    """{reason: packets} of those drops that somebody misses."""
    return {drop["reason"]: drop["total"] for drop in drops
            if drop["total"] and drop["severity"] != "consumed" and drop["reason"] not in MESSAGES}


class Testpmd(Poller):
    """dpdk-testpmd in one forwarding mode."""

    THREAD = r"lcore-worker-\d+|rte-worker-\d+"

    def __init__(self, directory, mode, eal, arguments, namespace=None):
        name = f"testpmd-{mode}-{namespace.role}" if namespace else f"testpmd-{mode}"
        super().__init__(pathlib.Path(directory) / f"{name}.log")
        # unbuffered, or its answers stay in its pocket
        self._spawn(["stdbuf", "-o0", "dpdk-testpmd", *eal, "--", "-i", f"--forward-mode={mode}", *arguments],
                    subprocess.PIPE, namespace)
        self._await(self._ready)
        self._command("start")

    def switch(self, mode):
        """Goes on in another forwarding mode."""
        for command in ("stop", f"set fwd {mode}", "start"):
            self._command(command)
        self.packets()

    def _ready(self):
        self.check_alive()
        return "testpmd>" in self.output()

    def _command(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def packets(self):
        seen = len(self.output())
        self._command("show port stats 0")
        answer = wait_until(lambda: re.search(r"RX-packets:\s*(\d+).*TX-packets", self.output()[seen:], re.DOTALL), 10,
                            "an answer of testpmd")
        return int(answer[1])

    def stop(self):
        if self.process and self.process.poll() is None:
            self.resume()
            with contextlib.suppress(OSError):
                self._command("quit")
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        super().stop()


def turns(pollers, seconds):
    """{name: what gives its rate} for pollers that are paused between their turns."""
    for poller in pollers.values():
        poller.pause()
    return {name: lambda poller=poller: _turn(poller, seconds) for name, poller in pollers.items()}


def _turn(poller, seconds):
    poller.check_alive()
    return poller.rate(seconds)
