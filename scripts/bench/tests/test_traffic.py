"""The frames of the benches, and the arithmetic of results."""

import pathlib
import struct
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import instructions  # noqa: E402
import results  # noqa: E402
import traffic  # noqa: E402


def frames(path):
    data = path.read_bytes()
    at = 24
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        yield data[at + 16:at + 16 + length]
        at += 16 + length


def test_every_session_is_in_the_file_once_and_in_no_order(tmp_path):
    count = traffic.write_pcap(tmp_path / "a.pcap", 10_000)
    found = list(frames(tmp_path / "a.pcap"))
    assert len(found) == count == 10_000 + len(traffic.introductions())
    flows = [(frame[26:30], frame[34:36]) for frame in found if frame[12:14] == b"\x08\x00"]
    assert len(set(flows)) == 10_000
    assert flows != sorted(flows)


def test_few_sessions_are_drawn_until_the_file_is_long_enough(tmp_path):
    traffic.write_pcap(tmp_path / "a.pcap", 10)
    flows = [frame[26:36] for frame in frames(tmp_path / "a.pcap") if frame[12:14] == b"\x08\x00"]
    assert len(set(flows)) == 10 and len(flows) == traffic.FRAMES_MIN


def test_checksums_are_right():
    frame = traffic.udp_frame(12345)
    assert len(frame) == 60
    assert traffic.checksum(frame[14:34]) == 0
    pseudo = frame[26:34] + struct.pack("!BBH", 0, 17, 26)
    assert traffic.checksum(pseudo + frame[34:60]) == 0


def test_a_dearer_part_fails_and_a_cheaper_one_does_not():
    lines, wrong = instructions.compare({"a": 104.0, "b": 96.0, "c": 102.0}, {"a": 100.0, "b": 100.0, "c": 100.0})
    assert len(lines) == 3
    assert len(wrong) == 1 and wrong[0].startswith("a: 104.0 instructions, +4.0%")


def test_a_part_that_is_not_recorded_or_not_counted_fails():
    _, wrong = instructions.compare({"new": 1.0}, {"gone": 1.0})
    assert len(wrong) == 2


@pytest.mark.parametrize("goal, met", [((">=", 0.75, "ratio"), True), (("<=", 0.5, "ratio"), False),
                                       (("<=", 100, "value"), True)])
def test_goals_are_told(goal, met):
    entry = results.result("case", {"n": 1}, 80, "x", "reference", 100, goal=goal)
    assert entry["ratio"] == 0.8 and entry["goal"]["met"] is met


def test_a_disturbance_of_both_cancels_out():
    assert results.paired([10, 5, 10], [20, 10, 20]) == 0.5
