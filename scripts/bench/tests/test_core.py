"""How fast the core was, and which rounds decide."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import core  # noqa: E402
import results  # noqa: E402


def taken(rounds, quick=False, full_speed=4.0):
    """Rounds of (speed between the turns, ours), theirs always 10; the last one comes again and again."""
    endless = [*rounds, *[rounds[-1]] * core.Rounds(quick, full_speed).limit]
    ours = iter([value for _, value in endless])
    speeds = iter([9.0, *(speed for between, _ in endless for speed in (between, 9.0))])
    return once(quick, full_speed).take({"a": ours.__next__, "b": lambda: 10}, speeds.__next__)


def once(quick, full_speed):
    """Rounds whose turns wait for nothing and are taken once."""
    rounds = core.Rounds(quick, full_speed)
    rounds.patience, rounds.tries = 0, 1
    return rounds


def judged(*arguments, **more):
    found = taken(*arguments, **more).figures("a", "b")
    return found["value"], found["ratio"], found["core"]


CALM, DISTURBED = (3.9, 8), (2.0, 3)


def test_rounds_at_full_speed_decide():
    value, ratio, found = judged([DISTURBED, CALM, DISTURBED, DISTURBED, CALM] + [DISTURBED] * 10 + [CALM] * 7)
    assert (value, ratio) == (8, 0.8)
    assert found == {"speed": 3.9, "fastest": 4.0, "share": 0.97, "judged": "at full speed", "rounds": 9, "of": 22,
                     "all_value": 3, "all_ratio": 0.3}


def test_the_result_does_not_say_which_rounds_decide():
    rounds = [(3.9, 1), (2.0, 30), (3.9, 20), (2.0, 1), (3.9, 8), (2.0, 8)] * 3
    value, _, found = judged(rounds)
    assert (value, found["rounds"], found["of"]) == (8, 9, 17)


def test_a_change_within_a_round_shows():
    # Before, between the turns, and after them.
    for speeds in ([2.0, 4.0, 4.0], [4.0, 2.0, 4.0], [4.0, 4.0, 2.0]):
        rounds = core.Rounds(True, 4.0)
        rounds.wanted = rounds.limit = 1
        rounds.take({"a": lambda: 1, "b": lambda: 1}, iter(speeds).__next__)
        assert (len(rounds.all), rounds.at_full_speed("a", "b")) == (1, [])


def test_what_was_after_a_round_is_before_the_next():
    rounds = core.Rounds(True, 4.0).take({"a": lambda: 1}, iter([4.0, 4.0, 2.0, 4.0]).__next__)
    assert [found["a"] for found in rounds.all] == [(1, 4.0), (1, 2.0), (1, 2.0)]


def test_only_the_turns_that_are_compared_must_be_at_full_speed():
    rounds = core.Rounds(True, 4.0)
    speeds = iter([4.0, *[4.0, 4.0, 2.0, 4.0] * 3])
    rounds.take({name: lambda: 1 for name in "abcd"}, speeds.__next__)
    assert [len(rounds.at_full_speed(*pair)) for pair in ("ab", "ac", "ad")] == [3, 0, 0]
    assert len(rounds.all) == 3


def test_a_turn_waits_for_full_speed_but_not_for_ever():
    looks, begun = iter([2.0, 2.0, 3.9, *[2.0] * 100_000]), []
    rounds = core.Rounds(False, 4.0)
    rounds.tries = 1
    rounds.take({"a": lambda: begun.append(1)}, looks.__next__)
    assert len(begun) == rounds.limit == 27
    # Thrice before the first turn and once after it, and for each other one until patience ends.
    assert 100_003 - len(list(looks)) == 3 + 1 + 26 * (rounds.patience + 1)


def test_a_disturbed_turn_is_taken_again_and_only_its_last_one_counts():
    gives = iter([1, 2, 3, 4])
    rounds = core.Rounds(False, 4.0)
    # Before it; after its first two; after the third; the same for the other one, disturbed for ever.
    rounds.wanted = rounds.limit = 1
    looks = iter([4.0, 2.0, 4.0, 2.0, 4.0, 4.0, *[2.0] * 1_000])
    taken_again = []
    rounds.take({"a": gives.__next__, "b": lambda: taken_again.append(1)}, looks.__next__)
    assert rounds.all == [{"a": (3, 4.0), "b": (None, 2.0)}]
    assert len(taken_again) == rounds.tries == 4


def test_turns_that_are_taken_again_count():
    rounds = core.Rounds(False, 4.0)
    rounds.patience = 0
    turns = []
    rounds.take({"a": lambda: turns.append(1), "b": lambda: turns.append(1)}, lambda: 2.0)
    assert 2 * rounds.limit <= len(turns) < 2 * rounds.limit + 2 * rounds.tries


@pytest.mark.parametrize("quick, calm, decides", [(False, 4, 3), (False, 5, 8), (True, 2, 8), (True, 3, 8)])
def test_too_few_at_full_speed_leave_it_to_all(quick, calm, decides):
    value, _, found = judged([CALM] * calm + [DISTURBED], quick)
    assert (value, found["rounds"]) == (decides, calm)
    assert found["judged"] == ("at full speed" if calm >= (3 if quick else 5) else "all")


@pytest.mark.parametrize("quick, count", [(False, 27), (True, 3)])
def test_disturbed_rounds_are_followed_by_others_but_not_for_ever(quick, count):
    assert judged([DISTURBED], quick)[2]["of"] == count
    assert judged([CALM], quick)[2]["of"] == (3 if quick else 9)


def test_the_fastest_is_on_record_or_what_one_in_ten_had():
    assert taken([(3.0, 8)], full_speed=0).full_speed == 3.0
    assert taken([(3.0, 8)] * 8 + [(4.0, 8), (3.0, 8)], full_speed=0).full_speed == 3.0, "one is an accident"
    history = [{"cpu": "a CPU", "core": {"speed": 2.0, "fastest": 4.0, "share": 0.5}},
               {"cpu": "another", "core": {"speed": 9.0, "fastest": 9.0, "share": 1.0}},
               {"cpu": "a CPU"}, {"cpu": "a CPU", "core": None}]
    assert [core.on_record(cpu, history) for cpu in ("a CPU", "unknown")] == [4.0, 0]


def test_the_table_says_which_rounds_decided():
    shown = lambda found: results.table([results.result("a", {}, 1, "s", core=found)]).splitlines()[-1].split("s", 1)[1].strip()
    assert shown(judged([CALM])[2]) == "9 of 9"
    assert shown(judged([DISTURBED])[2]) == "all 27, at 0.5"
    assert shown(None) == ""


def test_a_figure_made_of_two_tells_the_slower_core():
    fast = {"share": 0.97, "judged": "at full speed", "all_value": 100, "all_ratio": 2}
    slow = {"share": 0.6, "judged": "at full speed", "all_value": 200, "all_ratio": 3}
    assert core.compared(fast, slow) == {**slow, "all_value": 100, "all_ratio": 2.0}
    assert core.compared(slow, fast) == {**slow, "all_value": 200, "all_ratio": 0.5}


def test_rounds_are_taken_in_equal_parts():
    rounds, of_part = core.Rounds(False, 4.0), []
    for number in (1, 2, 3):
        before = len(rounds.all)
        rounds.part(number, 3).take({"a": lambda: 1, "b": lambda: 2}, lambda: 4.0)
        of_part.append(len(rounds.all) - before)
    assert of_part == [3, 3, 3]
    disturbed = core.Rounds(False, 4.0)
    disturbed.tries = 1
    for number in (1, 2, 3):
        disturbed.part(number, 3).take({"a": lambda: 1}, lambda: 2.0)
        assert disturbed.turns == 9 * number


def test_figures_of_unlike_rounds_are_not_compared():
    fast, slow = [{"share": share, "judged": judged, "all_value": 100, "all_ratio": 2}
                  for share, judged in ((0.97, "at full speed"), (0.6, "all"))]
    for pair in ((fast, slow), (slow, fast)):
        entry = results.result("a", {}, 1, "s", "b", 2, goal=(">=", 0.1, "ratio"), core=core.compared(*pair))
        assert entry["goal"]["met"] is None
        assert results.table([entry]).splitlines()[-1].endswith("?  apart, at 0.6")


def test_a_round_without_a_reference_gives_no_quotient():
    rounds = core.Rounds(True, 4.0).take({"a": lambda: 3, "b": iter([0, 5, 5]).__next__}, lambda: 4.0)
    found = rounds.figures("a", "b")
    assert (found["runs"]["rounds"], found["ratio"]) == ([[4.0, 0.6], [4.0, 0.6]], 0.6)
