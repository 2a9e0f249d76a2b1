"""Which drops are packets that somebody misses."""

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import machine  # noqa: E402
import poller  # noqa: E402

HARMLESS = {"neighbour_message", "echo_answered", "proxy_header_awaited", "arp_malformed", "arp_not_for_us", "nd_malformed",
            "nd_not_for_us", "neighbour_limited"}


def drops():
    """Every reason that the gateway knows, once each."""
    table = (machine.ROOT / "src" / "path" / "drop_reason.rs").read_text(encoding="utf-8")
    rows = re.findall(r'^    [A-Z]\w+ "(\w+)" (Consumed|Policy|Malformed|Capacity) ', table, re.MULTILINE)
    return [{"reason": reason, "severity": severity.lower(), "total": 1} for reason, severity in rows]


def test_only_messages_of_neighbours_are_no_loss():
    reasons = {drop["reason"] for drop in drops()}
    assert len(reasons) > 50 and HARMLESS < reasons
    assert set(poller.lost(drops())) == reasons - HARMLESS


def test_a_packet_whose_next_hop_is_not_found_is_lost():
    found = poller.lost(drops())
    assert found["neighbour_queue_full"] == found["neighbour_unreachable"] == found["neighbour_table_full"] == 1


def test_what_did_not_happen_is_not_told():
    assert poller.lost([{"reason": "no_route", "severity": "policy", "total": 0}]) == {}
