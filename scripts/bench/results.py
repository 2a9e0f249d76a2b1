"""What a case gives out: one object per figure, as JSON for machines and as a table for people."""

import json
import math
import statistics

# How a comparison is judged whose two figures are not of like rounds: not at all.
APART = "apart"


def quantile(samples, share):
    """The sample below which `share` of them lie."""
    ordered = sorted(samples)
    return ordered[round((len(ordered) - 1) * share)]


def summary(samples, more_is_better=False):
    """Minimum, median, maximum and the best decile."""
    return {
        "min": rounded(min(samples)),
        "median": rounded(statistics.median(samples)),
        "max": rounded(max(samples)),
        "best_decile": rounded(quantile(samples, 0.9 if more_is_better else 0.1)),
        "count": len(samples),
    }


def once(value):
    """As `summary`, of what was measured once."""
    return {"min": rounded(value), "median": rounded(value), "max": rounded(value), "count": 1}


def rounded(value, digits=4):
    """To so many significant digits."""
    if not value or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def paired(samples, reference):
    """The median of the quotients of neighbours in time: what disturbs both at once cancels out."""
    return statistics.median(a / b for a, b in zip(samples, reference) if b)


def result(case, params, value, unit, reference=None, reference_value=None, ratio=None, runs=None, goal=None, core=None):
    """One figure. `goal`: ("<=" or ">=", number, "ratio" or "value"); it is reported, never gated. `core`: how fast it was."""
    if ratio is None and reference_value:
        ratio = value / reference_value
    return {
        "case": case, "params": params, "value": rounded(value), "unit": unit, "reference": reference,
        "reference_value": None if reference_value is None else rounded(reference_value),
        "ratio": rounded(ratio) if ratio else None, "runs": runs or once(value), "goal": describe_goal(goal, value, ratio, core),
        "core": core,
    }


def describe_goal(goal, value, ratio, core=None):
    if goal is None:
        return None
    comparison, bound, what = goal
    measured = ratio if what == "ratio" else value
    if measured is None or not math.isfinite(measured) or core and core["judged"] == APART:
        return {"bound": f"{what} {comparison} {bound}", "met": None}
    met = measured <= bound if comparison == "<=" else measured >= bound
    return {"bound": f"{what} {comparison} {bound}", "met": met}


def table(results):
    """All figures in columns."""
    header = ["case", "parameters", "value", "unit", "reference", "its value", "ratio", "goal", "core"]
    rows = [header, *(_row(entry) for entry in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _row(entry):
    number = lambda value: "" if value is None else f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    params = " ".join(_parameter(key, value) for key, value in entry["params"].items())
    goal = entry.get("goal")
    verdict = "" if not goal else f"{goal['bound']} " + {True: "met", False: "missed", None: "?"}[goal["met"]]
    return [entry["case"], params, number(entry["value"]), entry["unit"], entry["reference"] or "",
            number(entry["reference_value"]), number(entry["ratio"]), verdict, _rounds(entry.get("core"))]


def _rounds(core):
    """At full speed, of all: those decide. Where they are too few all do, and at which share of it they ran."""
    if not core:
        return ""
    if core["judged"] == APART:
        return f"{APART}, at {core['share']}"
    return f"{core['rounds']} of {core['of']}" if core["judged"] != "all" else f"all {core['of']}, at {core['share']}"


def _parameter(key, value):
    return f"{key}={value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{key}={value}"


def write_lines(results, path):
    """One JSON object per line."""
    with open(path, "w", encoding="utf-8") as file:
        for entry in results:
            file.write(json.dumps(entry) + "\n")
