"""How fast the core ran on which a figure was made, and which rounds decide: those in which it was ours.

Whoever has its other hardware thread, or the host, may take half of it for moments or minutes, and takes more from code
that fills a core than from code that waits for memory: a ratio is another one then. So the speed is measured around every
turn, and it alone says which rounds decide. What all of them give is kept beside that.
"""

import json
import statistics
import subprocess

import machine
from results import APART, paired, quantile, rounded, summary

# Of the fastest that this CPU was ever seen at: what counts as full speed. On the machine of the record the clock's own
# steps, which the host's load sets, reach down to 0.86 of it, and who shares it is hardly ever above 0.8 (`engine speed`,
# again and again). benches/engine/rounds.rs has the same.
FULL = 0.85
# Of the rounds of this run so many were as fast as what is called its fastest: the clock goes faster for moments.
ONE_IN = 10


def speed(number):
    """Simple steps that core `number` makes in a cycle of the time-stamp counter, right now."""
    done = subprocess.run([machine.engine(), "speed", "--core", str(number)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["steps_per_cycle"]


def on_record(cpu, history):
    """The fastest of the record for a CPU; 0 if there is none."""
    return max((line["core"]["fastest"] for line in history if line.get("core") and line["cpu"] == cpu), default=0)


def compared(ours, theirs):
    """For the rate of one figure as a share of another's: what that of the slower core says, and what all rounds give."""
    return {**_slower(ours, theirs), "all_value": ours["all_value"],
            "all_ratio": rounded(theirs["all_value"] / ours["all_value"])}


def compared_shares(ours, theirs):
    """The same for the ratio of one figure as a share of another's ratio."""
    return {**_slower(ours, theirs), "all_value": ours["all_ratio"],
            "all_ratio": rounded(ours["all_ratio"] / theirs["all_ratio"])}


def _slower(ours, theirs):
    """Of two figures of which only one is of rounds at full speed, no comparison says anything."""
    slower = min((ours, theirs), key=lambda core: core["share"])
    return slower if ours["judged"] == theirs["judged"] else {**slower, "judged": APART}


class Rounds:
    """What several gave in turn, A B A B ..., and how fast the core was around each turn."""

    def __init__(self, quick, full_speed):
        self.wanted, self.limit, self.enough = (3, 3, 3) if quick else (9, 27, 5)
        # Looks at the core before a turn begins, and how often a disturbed turn is taken.
        self.patience, self.tries = (0, 1) if quick else (50, 4)
        self.known = full_speed
        # {name: (what its turn gave, the slower of before and after)} by round
        self.all = []
        self.first_two = []
        self.turns = 0
        self.whole = self.wanted, self.limit

    def part(self, number, parts):
        """These, to be taken as far as the end of so many equal parts: what takes the turns may be another for each."""
        self.wanted, self.limit = (bound * number // parts for bound in self.whole)
        return self

    def take(self, turns, measure):
        """`turns`: {name: what gives its value}, the first two those that are compared first of all; `measure` gives the
        core's speed."""
        self.first_two = list(turns)[:2]
        now = measure()
        # Disturbed rounds are followed by others, but not for ever.
        while len(self.at_full_speed(*self.first_two)) < self.wanted and self.turns < self.limit * len(turns):
            found = {}
            for name, turn in turns.items():
                found[name], now = self._turn(turn, now, measure)
            self.all.append(found)
        return self

    def _turn(self, turn, now, measure):
        """What a turn gives with the core's speed around it, taken again while that is less than full; and its speed then."""
        for _ in range(self.tries):
            before = self._calm(now, measure)
            value, now = turn(), measure()
            self.turns += 1
            if min(before, now) >= FULL * self.full_speed:
                break
        return (value, min(before, now)), now

    def _calm(self, now, measure):
        """Waits for full speed, but not for ever: a turn that begins disturbed is in vain."""
        for _ in range(self.patience):
            if now >= FULL * self.full_speed:
                break
            now = measure()
        return now

    @property
    def full_speed(self):
        """The fastest that is known."""
        speeds = [_speed(found, self.first_two) for found in self.all]
        return max(self.known, quantile(speeds, 1 - 1 / ONE_IN)) if speeds else self.known

    def at_full_speed(self, *names):
        """The rounds in which the core was around these turns."""
        bound = FULL * self.full_speed
        return [found for found in self.all if _speed(found, names) >= bound]

    def figures(self, ours, theirs):
        """What `result` asks of two of them: medians of the rounds at full speed, or of all if those are too few."""
        at_full = self.at_full_speed(ours, theirs)
        decide = at_full if len(at_full) >= self.enough else self.all
        (mine, base), everything = _columns(decide, ours, theirs), _columns(self.all, ours, theirs)
        speeds = [_speed(found, (ours, theirs)) for found in self.all]
        now = statistics.median(_speed(found, (ours, theirs)) for found in decide)
        quotients = [[rounded(speed), rounded(a / b)] for speed, a, b in zip(speeds, *everything) if b]
        return {
            "value": statistics.median(mine), "reference_value": statistics.median(base), "ratio": paired(mine, base),
            "runs": {**summary(mine, True), "reference": summary(base, True), "rounds": quotients},
            "core": {"speed": rounded(now), "fastest": rounded(self.full_speed), "share": round(now / self.full_speed, 2),
                     "judged": "at full speed" if decide is at_full else "all", "rounds": len(at_full), "of": len(self.all),
                     "all_value": rounded(statistics.median(everything[0])), "all_ratio": rounded(paired(*everything))},
        }


def _speed(found, names):
    return min(found[name][1] for name in names)


def _columns(rounds, *names):
    return [[found[name][0] for found in rounds] for name in names]
