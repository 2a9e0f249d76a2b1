"""Runs the cases, shows how it goes, prints the table, writes JSON, curves and the history.

Absolute times wander on shared machines: every figure is a ratio to a reference that ran interleaved with it.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import both_ways
import control
import core
import curves
import engine
import forward
import latency
import machine
import readme
import real
import receiver
import results
import toa

CASES = {
    "forward": forward.run,
    "cycles": engine.cycles,
    "both-ways": both_ways.run,
    "new-sessions": engine.new_sessions,
    "workers": engine.workers,
    "memory": engine.memory,
    "toa": toa.run,
    "control": control.run,
    "latency": latency.run,
    "real": real.run,
    "receiver": receiver.run,
}
# Every run, and, by --record, what is worth keeping in git. README shows the last record of each case.
ALL_RUNS = machine.OUTPUT / "runs.jsonl"
README = machine.ROOT / "README.md"
FIGURES = machine.ROOT / "docs" / "figures"
HISTORY = machine.ROOT / "benches" / "history.jsonl"
RECORDED = ("time", "commit", "command", "case", "params", "value", "unit", "reference", "reference_value", "ratio", "goal",
            "core")


class Context:
    """What every case gets: `full_speed` is the fastest that the core is known at, and grows."""

    def __init__(self, quick, directory, full_speed):
        self.quick, self.directory, self.full_speed = quick, directory, full_speed


def main():
    options = arguments()
    machine.OUTPUT.mkdir(parents=True, exist_ok=True)
    if not options.no_build:
        machine.build()
    facts = {"machine": machine.describe(), "commit": machine.commit(), "command": command(),
             "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    history = [json.loads(line) for line in HISTORY.read_text(encoding="utf-8").splitlines()]
    directory = pathlib.Path(tempfile.mkdtemp(prefix="fullnat-bench-"))
    context = Context(options.quick, directory, core.on_record(facts["machine"]["cpu"], history))
    found, failed = [], []
    try:
        names = options.cases or list(CASES)
        for at, name in enumerate(names, 1):
            began = time.monotonic()
            machine.say(f"case {name} ({at} of {len(names)})")
            try:
                with machine.foremost():
                    for entry in CASES[name](context):
                        found.append({**entry, **facts})
                        machine.say(results.table([entry]).splitlines()[-1])
            except Exception:  # a case that fails does not take the others' figures along
                traceback.print_exc()
                failed.append(name)
            machine.say(f"case {name} took {time.monotonic() - began:.0f} s")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    keep(found, options)
    for directory in [machine.OUTPUT, *([FIGURES] if options.record else [])]:
        for path in curves.draw(found, directory):
            machine.say(f"drawn: {path}")
    if options.record:
        README.write_text(readme.shown(README.read_text(encoding="utf-8"), FIGURES, machine.ROOT), encoding="utf-8")
    print(results.table(found))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE",
                        help=f"what to measure: {', '.join(CASES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="less than three minutes: fewer sizes, shorter windows")
    parser.add_argument("--json", metavar="FILE", help="write one JSON object per figure")
    parser.add_argument("--record", action="store_true",
                        help="keep the figures in benches/history.jsonl, show them and their curves in README.md")
    parser.add_argument("--no-build", action="store_true", help="take the programs as they are")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    return options


def keep(found, options):
    """Everything in target/bench; by --record in the history, too, which is kept in git and never gated."""
    if options.json:
        results.write_lines(found, options.json)
    with open(ALL_RUNS, "a", encoding="utf-8") as runs:
        runs.writelines(json.dumps(entry) + "\n" for entry in found)
    if options.record:
        with open(HISTORY, "a", encoding="utf-8") as history:
            for entry in found:
                kept = {key: entry.get(key) for key in RECORDED}
                history.write(json.dumps({**kept, "cpu": entry["machine"]["cpu"]}) + "\n")
        # tests/tidy/figures.rs holds README against the history, and writes it when told to.
        subprocess.run(["cargo", "test", "--quiet", "--no-default-features", "--test", "tidy", "figures"],
                       cwd=machine.ROOT, env={**os.environ, "BLESS": "1"}, check=True, stdout=sys.stderr)


def command():
    """What makes these figures again."""
    return " ".join(["scripts/bench.sh", *(word for word in sys.argv[1:] if word != "--no-build")])


if __name__ == "__main__":
    main()
