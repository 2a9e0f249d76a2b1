"""What tests are repeated over: workers, the family of the client's side, offloads of the peers.

A test that is over in a moment is crossed with `OFFLOADS` (and the `workers` fixture). A long one is `paired`: four of
the eight combinations, in which every two of the three dimensions meet in all their values; `remaining` are the other
four.
"""

import itertools

import pytest

from .lab import VIP, VIP6

OFFLOADS = pytest.mark.parametrize("offloads", [False, True], ids=["plain", "offloads"])
VIPS = pytest.mark.parametrize("vip", [VIP, VIP6], ids=["v4", "v6"])


def _combinations(odd):
    return [pytest.param(workers, vip, offloads, id="-".join(
                [f"{workers}worker{'s' * (workers > 1)}", "v6" if vip == VIP6 else "v4", "offloads" if offloads else "plain"]))
            for workers, vip, offloads in itertools.product((1, 2), (VIP, VIP6), (False, True))
            if ((workers == 2) + (vip == VIP6) + offloads) % 2 == odd]


paired = pytest.mark.parametrize("workers, vip, offloads", _combinations(odd=1))
remaining = pytest.mark.parametrize("workers, vip, offloads", _combinations(odd=0))
