"""How fast the core ran on which a figure was made.

Whoever has its other hardware thread, or the host, may take half of it for minutes, and takes more from code that fills a
core than from code that waits for memory: a ratio is another one then. So the speed is measured in every round, and what
the rounds at full speed give alone is told beside what all of them give.
"""

import json
import statistics
import subprocess

import machine
from results import rounded

# Of the fastest that this CPU was ever seen at: what counts as full speed.
FULL = 0.9


def speed(number):
    """Simple steps that core `number` makes in a cycle of the time-stamp counter, right now."""
    done = subprocess.run([machine.engine(), "speed", "--core", str(number)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["steps_per_cycle"]


def rounds(speeds, ours, theirs):
    """What an entry notes of its rounds: the core's speed and the quotient, of each."""
    return [[rounded(now), rounded(a / b)] for now, a, b in zip(speeds, ours, theirs) if b]


def mark(found, history):
    """Says of every entry how fast its core was, against the fastest of all entries and of the record for this CPU."""
    speeds = [speed for entry in found for speed in _speeds(entry)]
    if not speeds:
        return
    cpu = found[0]["machine"]["cpu"]
    known = (line["core"]["fastest"] for line in history if line.get("core") and line["cpu"] == cpu)
    fastest = max([*speeds, *known])
    for entry in found:
        if of_entry := _speeds(entry):
            now = statistics.median(of_entry)
            entry["core"] = {"speed": rounded(now), "fastest": rounded(fastest), "share": round(now / fastest, 2),
                             **_at_full(entry, fastest)}


def _speeds(entry):
    if "core_speed" in entry:
        return [entry["core_speed"]]
    return [speed for speed, _ in entry["runs"].get("rounds", [])]


def _at_full(entry, fastest):
    at_full = [ratio for speed, ratio in entry["runs"].get("rounds", []) if speed >= FULL * fastest]
    return {"ratio": rounded(statistics.median(at_full)), "rounds": len(at_full)} if at_full else {}
