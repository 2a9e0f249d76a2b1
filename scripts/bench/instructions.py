"""Instruction counts by callgrind: the same on every machine, hence the only figures that are gated.

`benches/instructions.json` is the record. A count that is more than 3 % above it fails; so does one that is missing on
either side. Whoever makes something dearer on purpose changes the record in the same commit (`--record`) and says why.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import machine

RECORD = machine.ROOT / "benches" / "instructions.json"
TOLERANCE = 0.03


def count(binary, name):
    """Instructions of one run of a part, per thing done."""
    with tempfile.TemporaryDirectory(prefix="fullnat-count-") as directory:
        out = pathlib.Path(directory) / "callgrind.out"
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*::count::measured*",
             f"--callgrind-out-file={out}", binary, "count", name],
            capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
        total = int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)[1])
    return round(total / int(done.stdout), 1)


def names(binary):
    """Everything that can be counted."""
    return subprocess.run([binary, "count"], capture_output=True, text=True, check=True).stdout.splitlines()


def count_all(binary):
    """{name: instructions per thing}."""
    listed = names(binary)
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(listed, pool.map(lambda name: count(binary, name), listed)))


def compare(counted, recorded):
    """(lines for people, what is wrong)."""
    lines, wrong = [], []
    for name in sorted({*counted, *recorded}, key=lambda n: (n not in recorded, list(recorded).index(n) if n in recorded else 0)):
        now, before = counted.get(name), recorded.get(name)
        if now is None or before is None:
            where = "counted" if now is None else "recorded"
            wrong.append(f"{name}: not {where}; change benches/instructions.json (scripts/bench.sh instructions --record)")
            continue
        change = now / before - 1
        lines.append(f"{name:32} {before:10,.1f} -> {now:10,.1f}  {change:+7.1%}")
        if change > TOLERANCE:
            wrong.append(f"{name}: {now:,.1f} instructions, {change:+.1%} over the record of {before:,.1f}")
    return lines, wrong


def main(arguments):
    parser = argparse.ArgumentParser(prog="scripts/bench.sh instructions", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the counts to benches/instructions.json")
    parser.add_argument("--binary", help="count this program instead of building it")
    options = parser.parse_args(arguments)
    if not options.binary:
        machine.build()
    counted = count_all(options.binary or machine.engine())
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    lines, wrong = compare(counted, recorded)
    print("\n".join(lines))
    if options.record:
        RECORD.write_text(json.dumps(counted, indent=2) + "\n")
        return 0
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
