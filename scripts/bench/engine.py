"""The cases that run inside one process (benches/engine): cycles, both-ways, new-sessions, memory, toa, workers."""

import json
import os
import subprocess
import sys

import core
import machine
from results import describe_goal, once, result

# Huge pages of 2 MiB for the largest run: the table and as much again for the reference.
PAGES_PER_MILLION = 160


def cycles(context):
    """Cycles per packet of the path alone."""
    sessions = "65536,1000000" if context.quick else "65536,1000000,4000000,10000000"
    options = ["--sessions", sessions, "--seconds", "0.5" if context.quick else "3"]
    if context.quick:
        options += ["--kinds", "udp4,tcp4"]
    figures = {}
    for entry in _run(context, "cycles", options, 1 if context.quick else 10):
        params = entry["params"]
        figures[params["kind"], params["sessions"], params["draw"]] = entry
        if params["draw"] == "uniform" and params["sessions"] in (1_000_000, 10_000_000):
            entry["goal"] = describe_goal(("<=", 3, "ratio"), entry["value"], entry["ratio"])
        yield entry
    yield from _families(figures)


def _families(figures):
    """IPv6 and TCP against IPv4 UDP, from the same run: rates, so that more is better."""
    for (kind, sessions, draw), entry in figures.items():
        base = figures.get(("udp4", sessions, draw))
        if kind != "udp4" and draw == "uniform" and base:
            yield _compared(entry, {"kind": kind, "sessions": sessions}, "udp4", base, 0.9)


def _compared(entry, params, reference, base, bound):
    """The rate of one figure as a share of another's from the same run."""
    ratio, speeds = base["value"] / entry["value"], core.compared(entry["core"], base["core"])
    return {**entry, "params": {**params, "compared": "rate"}, "reference": reference, "reference_value": base["value"],
            "ratio": round(ratio, 3), "core": speeds,
            "goal": describe_goal((">=", bound, "ratio"), entry["value"], ratio, speeds)}


def new_sessions(context):
    """Cycles per new session."""
    options = ["--pool-use", "10,99" if context.quick else "10,50,90,99", "--seconds", "0.5" if context.quick else "3"]
    if context.quick:
        options += ["--beginnings", "syn"]
    at_ten = {}
    for entry in _run(context, "new-sessions", options, 2):
        params = entry["params"]
        if params["pool_use"] == 10:
            at_ten[params["beginning"]] = entry
            if params["beginning"] != "life":
                entry["goal"] = describe_goal(("<=", 1000, "value"), entry["value"], None)
        yield entry
        base = at_ten.get(params["beginning"])
        if params["pool_use"] == 99 and base:
            yield _compared(entry, params, "at 10 % of the pool", base, 0.5)


def memory(context):
    """Bytes per live session."""
    options = ["--sessions", "1000000" if context.quick else "1000000,10000000"]
    for entry in _run(context, "memory", options, 0):
        bound = 160 if entry["params"]["kind"].endswith("4") else 224
        yield {**entry, "goal": describe_goal(("<=", bound, "value"), entry["value"], None)}
        fit = entry["runs"].pop("sessions_in_16_gib")
        yield {**entry, "params": {**entry["params"], "what": "fit in 16 GiB"}, "value": fit, "unit": "sessions",
               "runs": once(fit)}


def both_ways(context):
    """As many answers as requests, against requests alone, without devices."""
    options = ["--sessions", "1000000", "--seconds", "0.5" if context.quick else "3"]
    for entry in _run(context, "both-ways", options, 2):
        yield {**entry, "params": {**entry["params"], "devices": "none"},
               "goal": describe_goal((">=", 0.9, "ratio"), entry["value"], entry["ratio"])}


def toa(context):
    """TOA in every request against none, without devices."""
    options = ["--sessions", "1000" if context.quick else "1000,1000000", "--seconds", "0.5" if context.quick else "3"]
    for entry in _run(context, "toa", options, 4):
        yield {**entry, "params": {**entry["params"], "devices": "none"}}


def workers(context):
    """Two and more workers against one."""
    options = ["--seconds", "1" if context.quick else "6"]
    if context.quick:
        options += ["--sessions", "200000"]
    for entry in _run(context, "workers", options, 0, pinned=False):
        params, handed = entry["params"], entry["runs"]["hand_off_share"]
        by_device = params["steered_by"] == "device"
        if params["workers"] == 2 and by_device:
            entry["goal"] = describe_goal((">=", 1.8, "ratio"), entry["value"], entry["ratio"])
        yield entry
        if params["workers"] > 1:
            yield result("workers", {**params, "what": "handed over"}, handed, "of all packets",
                         goal=("<=", 0, "value") if by_device else None)


def _run(context, case, options, millions, pinned=True):
    """Runs the program; its results as they come."""
    path = binary()
    options = [*options, "--full-speed", str(context.full_speed)]
    if pinned:
        options = [*options, "--core", str(machine.cores()[0])]
    with machine.huge_pages(millions * PAGES_PER_MILLION * 2 + 64 if millions else 0):
        process = subprocess.Popen([path, case, *options], stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        try:
            for line in process.stdout:
                entry = json.loads(line)
                if entry["core"]:
                    context.full_speed = max(context.full_speed, entry["core"]["fastest"])
                yield {**entry, "goal": None, "runs": {**once(entry["value"]), **entry["runs"]}}
            if process.wait() != 0:
                raise RuntimeError(f"{case}: the program ended with {process.returncode}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def binary():
    """Of the release build, unless FULLNAT_BENCH_ENGINE names another one."""
    return os.environ.get("FULLNAT_BENCH_ENGINE") or machine.engine()
