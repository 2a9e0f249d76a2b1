"""What a change did: instruction counts and cycles of this tree beside those of another commit.

Both are built and measured here and now. The cycles of the two programs are taken in turn, several times.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys

import instructions
import machine

ROUNDS = 4
CYCLES = ["cycles", "--sessions", "65536,1000000", "--seconds", "0.5", "--no-zipf", "--small-pages"]


def main(arguments):
    parser = argparse.ArgumentParser(prog="scripts/bench.sh compare", description=__doc__)
    parser.add_argument("base", help="a commit, branch or tag")
    options = parser.parse_args(arguments)
    machine.build()
    ours = machine.engine()
    with _checkout(options.base) as tree:
        theirs = _build(tree)
        _counts(theirs, ours)
        _cycles(theirs, ours)
    return 0


@contextlib.contextmanager
def _checkout(base):
    """The other commit's tree, always in the same place, so that a run that was killed leaves nothing in the way."""
    git = ["git", "-C", machine.ROOT, "worktree"]
    tree = machine.OUTPUT / "compare"
    subprocess.run([*git, "remove", "--force", tree], check=False, stderr=subprocess.DEVNULL)
    machine.OUTPUT.mkdir(parents=True, exist_ok=True)
    subprocess.run([*git, "add", "--force", "--detach", tree, base], check=True, stdout=subprocess.DEVNULL)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", tree], check=True)


def _build(tree):
    """The bench of the other commit, in a target directory that is kept for the next time: cargo names both programs alike,
    wherever their trees are."""
    commit = subprocess.run(["git", "-C", tree, "log", "-1", "--format=%h %s"], check=True, capture_output=True, text=True)
    machine.say(f"building the bench of {commit.stdout.strip()}")
    target = machine.OUTPUT / "compare-target"
    subprocess.run(machine.BUILD, cwd=tree, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=True, stdout=sys.stderr)
    return machine.engine(target)


def _counts(theirs, ours):
    machine.say("counting instructions")
    lines, _ = instructions.compare(instructions.count_all(ours), instructions.count_all(theirs))
    print("instructions\n" + "\n".join(lines))


def _cycles(theirs, ours):
    samples = {}
    for turn in range(ROUNDS):
        machine.say(f"cycles, round {turn + 1} of {ROUNDS}")
        for name, binary in (("base", theirs), ("now", ours)):
            core = str(machine.cores()[0])
            done = subprocess.run([binary, *CYCLES, "--core", core], capture_output=True, text=True, check=True)
            for entry in map(json.loads, done.stdout.splitlines()):
                key = f"{entry['params']['kind']}, {entry['params']['sessions']:,} sessions"
                samples.setdefault(key, {}).setdefault(name, []).append(entry["ratio"])
    print("\ncycles per packet, as a multiple of the two-line probe")
    for key, both in samples.items():
        before, now = statistics.median(both["base"]), statistics.median(both["now"])
        print(f"{key:32} {before:10.2f} -> {now:10.2f}  {now / before - 1:+7.1%}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
