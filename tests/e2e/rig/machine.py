"""The machine: its hugepages, and what else it does while a time is measured.

Limits on times are for the gateway, not for whoever else runs; what those take is read from /proc.
"""

import contextlib
import glob
import os
import pathlib
import threading
import time

import pytest

from .pauses import Pauses

# linux/socket.h: beyond net.core.rmem_max.
SO_RCVBUFFORCE = 33


def percentile(seconds, share):
    """The time that this share of them does not exceed."""
    ordered = sorted(seconds)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def summary(seconds):
    """The worst, the 99th percentile and the median of some times."""
    return "worst {:.1f} ms, p99 {:.2f} ms, median {:.2f} ms".format(
        *(percentile(seconds, share) * 1000 for share in (1, 0.99, 0.5)))


NR_HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")


@contextlib.contextmanager
def huge_pages(count):
    """The kernel's default hugepages number `count` meanwhile; a test is skipped where it has not that many to give."""
    before = NR_HUGEPAGES.read_text()
    try:
        NR_HUGEPAGES.write_text(str(count))
        have = int(NR_HUGEPAGES.read_text())
        if have < count:
            pytest.skip(f"the kernel has {have} of {count} hugepages to give")
        assert have == count, "somebody else's hugepages are in use"
        yield
    finally:
        NR_HUGEPAGES.write_text(before)


class Timed:
    """Times of calls between `with` and its end, in which this thread and the `processes` take part.

    The machine's own pauses count for nobody. A call that took longer than `limit` is not charged with the time for
    which one of those who take part was ready to run and had no CPU. Where nobody else uses the machine that is no
    excuse: the times are judged with it.
    """

    IDLE = 0.05
    """CPUs' worth of time that a machine at rest takes for itself"""

    def __init__(self, limit, *processes):
        self.limit = limit
        self._calls = []
        self._processes = [process.pid for process in processes if process]
        self._thread = threading.get_native_id()
        self._pauses = Pauses()

    def __enter__(self):
        self._pauses.__enter__()
        self._started, self._before = time.monotonic(), self._taken_by_others()
        return self

    def __exit__(self, *failure):
        self.others = max(0.0, self._taken_by_others() - self._before) / (time.monotonic() - self._started)
        self._pauses.__exit__(*failure)

    def measure(self, call):
        """What the call returns."""
        waited = self._waited()
        started = time.monotonic()
        result = call()
        ended = time.monotonic()
        self._calls.append((started, ended, self._waited() - waited if ended - started >= self.limit else 0.0))
        return result

    def check(self, share=1):
        """Says what was measured; this share of the calls must have stayed below the limit."""
        raw = [ended - started for started, ended, _ in self._calls]
        own = [ended - started - self._pauses.during(started, ended) for started, ended, _ in self._calls]
        charged = [took - min(took, waited) for took, (_, _, waited) in zip(own, self._calls)]
        print(f"{summary(raw)}; {len(self._pauses.found)} pauses of the machine; others took {self.others:.1%} of a CPU")
        assert percentile(charged, share) < self.limit, f"{summary(charged)}, pauses and waiting for a CPU left out"
        if self.others < self.IDLE:
            assert percentile(own, share) < self.limit, f"{summary(own)}, pauses of the machine left out"

    def _waited(self):
        """Seconds so far that those who take part were ready to run and had no CPU."""
        nanos = _waited(f"/proc/self/task/{self._thread}/schedstat")
        for process in self._processes:
            nanos += sum(_waited(path) for path in glob.glob(f"/proc/{process}/task/*/schedstat"))
        return nanos / 1e9

    def _taken_by_others(self):
        """Seconds of CPU time so far, with what a hypervisor withheld."""
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, file.readline().split()[1:9])
        own = sum(consumed(process) for process in ("self", *self._processes))
        return (user + nice + system + steal) / os.sysconf("SC_CLK_TCK") - own


def _waited(path):
    """0 where the kernel keeps no count."""
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        return int(file.read().split()[1])
    return 0


def consumed(process):
    """Seconds of CPU time that a process has taken with all its threads."""
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pauses_of_threads(process, name):
    """How often each thread with a name that begins so has given its CPU away by itself, by thread."""
    counts = {}
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        if (task / "comm").read_text(encoding="ascii").startswith(name):
            status = dict(line.split(":", 1) for line in (task / "status").read_text(encoding="ascii").splitlines())
            counts[task.name] = int(status["voluntary_ctxt_switches"])
    return counts
