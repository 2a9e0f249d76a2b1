"""Pauses of the machine itself: moments at which not even a real-time process ran, as a hypervisor makes them.

One watch per CPU, a process of its own, sleeps for a moment again and again and notes when it was woken late. Nothing
that the gateway or its peers do can make it late: it runs before all of them.
"""

import contextlib
import os
import subprocess
import sys
import time

PERIOD = 0.002
LATE = 0.005
"""seconds between two moments of a watch, from which on they are a pause"""


class Pauses:
    """The pauses between `with` and its end: (beginning, end) in `time.monotonic()`, of every CPU."""

    def __enter__(self):
        self.found = []
        self._watches = [
            subprocess.Popen([sys.executable, __file__, str(cpu)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for cpu in os.sched_getaffinity(0)]
        for watch in self._watches:
            assert watch.stdout.readline() == "watching\n", "no watch on the machine's pauses"
        return self

    def __exit__(self, *_):
        for watch in self._watches:
            watch.terminate()
            lines, _ = watch.communicate()
            self.found += [tuple(map(float, line.split())) for line in lines.splitlines()]

    def during(self, begin, end):
        """Seconds between two moments in which some CPU stood still."""
        reached, still = begin, 0.0
        for first, last in sorted(self.found):
            first, last = max(first, reached), min(last, end)
            if last > first:
                still += last - first
                reached = last
        return still


def watch(cpu):
    """Prints the pauses of one CPU until it is ended; without the right to real time, none."""
    os.sched_setaffinity(0, {cpu})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    real_time = os.sched_getscheduler(0) == os.SCHED_FIFO
    print("watching", flush=True)
    before = time.monotonic()
    while True:
        time.sleep(PERIOD)
        now = time.monotonic()
        if real_time and now - before > LATE:
            print(before, now, flush=True)
        before = now


if __name__ == "__main__":
    watch(int(sys.argv[1]))
