"""Runs the cases, shows how it goes, prints the table, writes JSON, curves and the history.

Absolute times wander on shared machines: every figure is a ratio to a reference that ran interleaved with it.
"""

import argparse
import datetime
import json
import pathlib
import shutil
import sys
import tempfile
import traceback

import control
import curves
import engine
import forward
import latency
import machine
import real
import results

CASES = {
    "forward": forward.run,
    "cycles": engine.cycles,
    "both-ways": engine.both_ways,
    "new-sessions": engine.new_sessions,
    "workers": engine.workers,
    "memory": engine.memory,
    "toa": engine.toa,
    "control": control.run,
    "latency": latency.run,
    "real": real.run,
}
# Every run, and, of whole runs only, what is worth keeping in git.
ALL_RUNS = machine.OUTPUT / "runs.jsonl"
HISTORY = machine.ROOT / "benches" / "history.jsonl"


class Context:
    """What every case gets."""

    def __init__(self, quick, directory):
        self.quick, self.directory = quick, directory


def main():
    options = arguments()
    machine.OUTPUT.mkdir(parents=True, exist_ok=True)
    if not options.no_build:
        machine.build_programs()
    facts = {"machine": machine.describe(), "commit": machine.commit(),
             "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    directory = pathlib.Path(tempfile.mkdtemp(prefix="fullnat-bench-"))
    found, failed = [], []
    try:
        for name in options.cases or CASES:
            machine.say(f"case {name}")
            try:
                for entry in CASES[name](Context(options.quick, directory)):
                    found.append({**entry, **facts})
                    machine.say(results.table([entry]).splitlines()[-1])
            except Exception:  # a case that fails does not take the others' figures along
                traceback.print_exc()
                failed.append(name)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    keep(found, options)
    for path in curves.draw(found, machine.OUTPUT):
        machine.say(f"drawn: {path}")
    print(results.table(found))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE",
                        help=f"what to measure: {', '.join(CASES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="less than three minutes: fewer sizes, shorter windows")
    parser.add_argument("--json", metavar="FILE", help="write one JSON object per figure")
    parser.add_argument("--no-build", action="store_true", help="take the programs as they are")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}; there are: {', '.join(CASES)}")
    return options


def keep(found, options):
    """Everything in target/bench; the ratios of whole runs in the history, which is kept in git and never gated."""
    if options.json:
        results.write_lines(found, options.json)
    with open(ALL_RUNS, "a", encoding="utf-8") as runs:
        runs.writelines(json.dumps(entry) + "\n" for entry in found)
    if not options.quick:
        with open(HISTORY, "a", encoding="utf-8") as history:
            for entry in found:
                kept = {key: entry[key] for key in ("time", "commit", "case", "params", "value", "unit", "reference", "ratio")}
                history.write(json.dumps({**kept, "cpu": entry["machine"]["cpu"]}) + "\n")


if __name__ == "__main__":
    main()
