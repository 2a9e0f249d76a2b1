"""Scaling and latency curves as SVG. Ratios where there is a reference, for absolute times wander."""

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams["svg.hashsalt"] = "fullnat"
from matplotlib import pyplot  # noqa: E402

WHO_FORWARDS = {"fullnatd": "-", "testpmd 5tswap": "--", "testpmd io": ":"}


def draw(results, directory):
    """Draws what there is enough of; the paths."""
    drawings = (("forward", _forward), ("cycles", _cycles), ("new-sessions", _new_sessions), ("latency", _latency))
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for case, plot in drawings:
        entries = [entry for entry in results if entry["case"] == case]
        if len(entries) > 1:
            figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
            plot(axes, entries)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False)
            path = directory / f"{case}.svg"
            figure.savefig(path, metadata={"Date": None})
            pyplot.close(figure)
            paths.append(path)
    return paths


def _series(entries, key, x, y):
    """{key: [(x, y), ...]} in the order of x."""
    series = {}
    for entry in entries:
        series.setdefault(key(entry), []).append((x(entry), y(entry)))
    return {name: sorted(points) for name, points in series.items()}


def _lines(axes, series, **style):
    for name, points in series.items():
        axes.plot(*zip(*points), marker="o", label=name, **style)


def _sessions(entry):
    return entry["params"]["sessions"]


def _forward(axes, entries):
    """A colour for every kind of frames, a style of line for who forwards them."""
    rates = {}
    for entry in entries:
        if "compared" not in entry["params"]:
            kind = entry["params"]["kind"]
            rates.setdefault((kind, "fullnatd"), {})[_sessions(entry)] = entry["value"] / 1e6
            rates.setdefault((kind, entry["reference"]), {})[_sessions(entry)] = entry["reference_value"] / 1e6
    colours = {kind: f"C{at}" for at, kind in enumerate(dict.fromkeys(kind for kind, _ in rates))}
    for (kind, who), points in rates.items():
        axes.plot(*zip(*sorted(points.items())), marker="o", color=colours[kind], linestyle=WHO_FORWARDS[who])
    for kind, colour in colours.items():
        axes.plot([], [], color=colour, label=kind)
    for who, style in WHO_FORWARDS.items():
        axes.plot([], [], color="grey", linestyle=style, label=who)
    axes.set(xscale="log", ylim=(0, None), xlabel="live sessions, drawn uniformly at random",
             ylabel="million packets per second, one core",
             title="forward: UDP of 64 bytes, TCP of 66 and 86 (IPv6), net_pcap")


def _cycles(axes, entries):
    entries = [entry for entry in entries if entry["params"].get("draw") == "uniform"]
    _lines(axes, _series(entries, lambda entry: entry["params"]["kind"], _sessions, lambda entry: entry["value"]))
    probe = _series(entries, lambda entry: "two-line probe", _sessions, lambda entry: entry["reference_value"])
    _lines(axes, {name: sorted(dict(points).items()) for name, points in probe.items()}, linestyle="--", color="grey")
    axes.set(xscale="log", ylim=(0, None), xlabel="live sessions, drawn uniformly at random", ylabel="cycles per packet",
             title="cycles: the path alone, requests and answers")


def _new_sessions(axes, entries):
    entries = [entry for entry in entries if "compared" not in entry["params"]]
    _lines(axes, _series(entries, lambda entry: entry["params"]["beginning"], lambda entry: entry["params"]["pool_use"],
                         lambda entry: entry["value"]))
    axes.set(ylim=(0, None), xlabel="local pool in use, %", ylabel="cycles per session, its end included",
             title="new-sessions")


def _latency(axes, entries):
    for entry in entries:
        points = entry["runs"].get("distribution", [])
        if points:
            name = f"{entry['params']['load']} % of the no-drop rate"
            axes.plot([1 / (1 - share) for share, _ in points if share < 1], [us for share, us in points if share < 1],
                      label=name)
    axes.set(xscale="log", xlabel="1 / (1 - quantile)", ylabel="round trip, µs", title="latency through the gateway")
