"""What `real` and `latency` make of their trials, and who runs beside them."""

import contextlib
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import latency  # noqa: E402
import machine  # noqa: E402
import middles  # noqa: E402
import real  # noqa: E402


class Standing:
    """A middle whose trials are told beforehand; it notes when it runs."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    @contextlib.contextmanager
    def awake(self):
        self.log.append(f"+{self.name}")
        yield self.name
        self.log.append(f"-{self.name}")


def trial(value, **others):
    return {"value": value, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 0, "retransmissions": 0, "lost": 0, **others}


def test_middles_take_turns_and_only_one_runs():
    log = []
    found = real.interleave({name: Standing(name, log) for name in "ABC"}, 2, trial)
    assert log == ["+A", "-A", "+B", "-B", "+C", "-C"] * 2
    assert [list(trials) for trials in found] == [["A", "B", "C"]] * 2


def test_a_trial_that_fails_is_missing_from_its_round_alone():
    answers = iter([1, RuntimeError("no"), 3, 4])

    def measured(_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = real.interleave({name: Standing(name, []) for name in "AB"}, 2, measured)
    assert found == [{"A": 1}, {"A": 3, "B": 4}]
    assert real.pairs(found, "A", "B") == [[3], [4]]
    assert real.pairs(found, "A", "C") == []


def test_a_ratio_is_that_of_neighbours_in_time():
    """The machine is twice as fast in the second half, and one trial was disturbed."""
    rounds = [(80, 100), (82, 100), (160, 200), (20, 200), (162, 200)]
    found = [{"fullnatd af_packet": trial(ours), "testpmd af_packet": trial(theirs)} for ours, theirs in rounds]
    rate = next(real.figures("keep-alive", found))
    assert (rate["reference"], rate["ratio"], rate["runs"]["count"]) == ("testpmd io", 0.8, 5)
    assert rate["goal"]["met"] is False


def test_each_device_is_compared_with_the_wire_on_it_and_with_all_others():
    found = [{"fullnatd af_packet": trial(8), "testpmd af_packet": trial(10), "fullnatd af_xdp": trial(18),
              "testpmd af_xdp": trial(20), "HAProxy": trial(5)}]
    rates = {(entry["params"]["device"], entry["reference"]): entry["ratio"]
             for entry in real.figures("connections", found) if "what" not in entry["params"]}
    assert rates == {("af_packet", "testpmd io"): 0.8, ("af_packet", "HAProxy"): 1.6,
                     ("af_xdp", "testpmd io"): 0.9, ("af_xdp", "HAProxy"): 3.6}


def test_segments_of_all_trials_count():
    found = [{"fullnatd af_xdp": trial(1, retransmissions=5, lost=lost), "testpmd af_xdp": trial(1, retransmissions=5)}
             for lost in (0, 0, 3)]
    told = {entry["params"].get("what"): entry for entry in real.figures("bulk", found)}
    assert (told["retransmissions"]["value"], told["retransmissions"]["goal"]["met"]) == (15, True)
    assert (told["lost"]["value"], told["lost"]["goal"]["met"]) == (3, False)


def test_a_quantile_is_the_median_of_the_trials_own():
    ours, theirs = ([{**dict.fromkeys(latency.QUANTILES, value), "lost": 0, "distribution": [[0.5, value]]} for value in values]
                    for values in ((100, 900, 120), (100, 600, 100)))
    entries = {entry["params"]["quantile"]: entry for entry in latency.figures({"load": 50, "rate": 1}, ours, theirs)}
    p99 = entries["p99"]
    assert (p99["value"], p99["ratio"], p99["runs"]["distribution"]) == (120, 1.2, [[0.5, 120]])
    assert p99["goal"]["met"] is True and entries["p50"]["goal"] is None


@pytest.mark.parametrize("text, milliseconds", [("  50%  812.00us", 0.812), ("  50%    1.50ms", 1.5), ("  50%    2.00s", 2000)])
def test_delays_of_wrk(text, milliseconds):
    assert real._milliseconds(text, "50") == milliseconds


def test_others_are_neither_our_children_nor_the_kernels():
    programs = [(1, 0, 1), (2, 0, 2), (9, 2, 4), (100, 1, 8), (101, 100, 16), (102, 101, 32), (200, 1, 64)]
    assert machine._not_ours(programs, 100) == [(1, 0, 1), (200, 1, 64)]


def test_a_place_has_both_devices_alike():
    for driver in middles.DEVICES:
        wan, lan = middles.devices(driver)
        assert wan.startswith(f"net_{driver}0,iface=gw-wan") and lan.startswith(f"net_{driver}1,iface=gw-lan")
