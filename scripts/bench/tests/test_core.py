"""How fast the core was, and what its rounds at full speed say."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import core  # noqa: E402


def entry(speeds=(), ours=(), theirs=(), **more):
    return {"machine": {"cpu": "a CPU"}, "runs": {"rounds": core.rounds(speeds, ours, theirs)}, **more}


def test_rounds_at_full_speed_are_told_apart():
    found = [entry([4.0, 2.0, 3.9, 2.12, 2.0], [8, 3, 9, 3, 3], [10, 5, 10, 5, 5])]
    core.mark(found, [])
    assert found[0]["core"] == {"speed": 2.12, "fastest": 4.0, "share": 0.53, "ratio": 0.85, "rounds": 2}


def test_full_speed_is_the_fastest_ever_seen_of_this_cpu():
    history = [{"cpu": "a CPU", "core": {"speed": 2.0, "fastest": 4.0, "share": 0.5}},
               {"cpu": "another", "core": {"speed": 9.0, "fastest": 9.0, "share": 1.0}},
               {"cpu": "a CPU"}, {"cpu": "a CPU", "core": None}]
    found = [entry([2.0, 2.0], [3, 3], [5, 5])]
    core.mark(found, history)
    assert found[0]["core"] == {"speed": 2.0, "fastest": 4.0, "share": 0.5}, "no round was at full speed"


def test_an_entry_of_the_engine_has_one_speed_and_others_have_none():
    found = [entry(core_speed=3.0), entry(core_speed=4.0), entry()]
    core.mark(found, [])
    assert [known["core"]["share"] for known in found if "core" in known] == [0.75, 1.0]
    assert "core" not in found[2]


@pytest.mark.parametrize("theirs", [[0, 5], [0, 0]])
def test_a_round_without_a_reference_is_none(theirs):
    assert len(core.rounds([1.0, 1.0], [3, 3], theirs)) == theirs.count(5)
