"""How fast the core ran on which a figure was made, and which rounds decide: those in which it was ours.

Whoever has its other hardware thread, or the host, may take half of it for moments or minutes, and takes more from code
that fills a core than from code that waits for memory: a ratio is another one then. So the speed is measured around every
turn, and it alone says which rounds decide. What all of them give is kept beside that.
"""

import json
import statistics
import subprocess

import machine
from results import paired, quantile, rounded, summary

# Of the fastest that this CPU was ever seen at: what counts as full speed. benches/engine/rounds.rs has the same.
FULL = 0.9
# Of the rounds of this run so many were as fast as what is called its fastest: the clock goes faster for moments.
ONE_IN = 10


def speed(number):
    """Simple steps that core `number` makes in a cycle of the time-stamp counter, right now."""
    done = subprocess.run([machine.engine(), "speed", "--core", str(number)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["steps_per_cycle"]


def on_record(cpu, history):
    """The fastest of the record for a CPU; 0 if there is none."""
    return max((line["core"]["fastest"] for line in history if line.get("core") and line["cpu"] == cpu), default=0)


def slower(one, other):
    """Of what two figures say of their cores: for a figure that is made of both."""
    return min((core for core in (one, other) if core), key=lambda core: core["share"], default=None)


class Rounds:
    """What several gave in turn, A B A B ..., and how fast the core was meanwhile."""

    def __init__(self, quick, full_speed):
        self.wanted, self.limit, self.enough = (3, 3, 3) if quick else (9, 27, 5)
        self.known = full_speed
        # (the slowest that the core was before, between and after the turns, {name: what its turn gave})
        self.all = []

    def take(self, turns, measure):
        """`turns`: {name: what gives its value}; `measure` gives the core's speed."""
        now = measure()
        while self.unfinished():
            slowest, found = now, {}
            for name, turn in turns.items():
                found[name] = turn()
                now = measure()
                slowest = min(slowest, now)
            self.all.append((slowest, found))
        return self

    def unfinished(self):
        """Disturbed rounds are followed by others, but not for ever."""
        return len(self.all) < self.wanted or len(self.at_full_speed()) < self.wanted and len(self.all) < self.limit

    @property
    def full_speed(self):
        """The fastest that is known."""
        return max(self.known, quantile([speed for speed, _ in self.all], 1 - 1 / ONE_IN)) if self.all else self.known

    def at_full_speed(self):
        bound = FULL * self.full_speed
        return [(speed, found) for speed, found in self.all if speed >= bound]

    def figures(self, ours, theirs):
        """What `result` asks of two of them: medians of the rounds at full speed, or of all if those are too few."""
        at_full = self.at_full_speed()
        decide = at_full if len(at_full) >= self.enough else self.all
        mine, base = _column(decide, ours), _column(decide, theirs)
        everything = _column(self.all, ours), _column(self.all, theirs)
        now = statistics.median(speed for speed, _ in decide)
        quotients = [[rounded(speed), rounded(a / b)] for (speed, _), a, b in zip(self.all, *everything) if b]
        return {
            "value": statistics.median(mine), "reference_value": statistics.median(base), "ratio": paired(mine, base),
            "runs": {**summary(mine, True), "reference": summary(base, True), "rounds": quotients},
            "core": {"speed": rounded(now), "fastest": rounded(self.full_speed), "share": round(now / self.full_speed, 2),
                     "judged": "at full speed" if decide is at_full else "all", "rounds": len(at_full), "of": len(self.all),
                     "all_value": rounded(statistics.median(everything[0])), "all_ratio": rounded(paired(*everything))},
        }


def _column(rounds, name):
    return [found[name] for _, found in rounds]
