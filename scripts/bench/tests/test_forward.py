"""What `forward` makes of its ratios."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import curves  # noqa: E402
import forward  # noqa: E402
import results  # noqa: E402
import traffic  # noqa: E402


def entry(kind, ours, theirs, sessions=1_000, share=0.9):
    core = {"share": share, "judged": "all", "rounds": 0, "of": 9, "all_value": ours / 2, "all_ratio": ours / theirs / 2}
    return results.result("forward", {"kind": kind, "sessions": sessions, "frame": traffic.FRAME_LEN[kind]}, ours,
                          "packets/s", "testpmd 5tswap", theirs, core=core)


def test_families_are_compared_by_their_shares_of_5tswap():
    found = list(forward._families({"tcp4": entry("tcp4", 6e6, 10e6, share=0.7), "udp4": entry("udp4", 8e6, 10e6),
                                    "udp6": entry("udp6", 6e6, 8e6)}))
    assert [one["params"] for one in found] == [{"kind": kind, "sessions": 1_000, "compared": "share"}
                                                for kind in ("tcp4", "udp6")]
    assert [(one["value"], one["reference"], one["reference_value"]) for one in found] == [
        (0.6, "udp4", 0.8), (0.75, "udp4", 0.8)]
    assert [(one["ratio"], one["goal"]["met"]) for one in found] == [(0.75, False), (0.9375, True)]
    assert [(one["core"]["share"], one["core"]["all_value"], one["core"]["all_ratio"]) for one in found] == [
        (0.7, 0.3, 0.75), (0.9, 0.375, 0.9375)]


def test_every_number_of_sessions_has_what_the_others_are_compared_with():
    for sizes in (forward.SESSIONS, forward.SESSIONS_QUICK):
        assert all("udp4" in kinds and set(kinds) <= set(traffic.FRAMES) for kinds in sizes.values())
    assert [sessions for sessions, kinds in forward.SESSIONS.items() if "udp6" in kinds and "tcp6" in kinds] == [
        1_000, 1_000_000]


def test_a_curve_has_packets_alone(monkeypatch, tmp_path):
    plotted = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axes, x, y, **style: plotted.extend(y))
    found = [entry(kind, 6e6, 10e6, sessions) for kind in ("udp4", "udp6") for sessions in (1_000, 1_000_000)]
    curves.draw([*found, *forward._families({one["params"]["kind"]: one for one in found})], tmp_path)
    assert set(plotted) == {6, 10}
