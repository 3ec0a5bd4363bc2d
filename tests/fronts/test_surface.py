# SPDX-License-Identifier: Apache-2.0
"""Hold fronts to the server without them: clients, logs, counters and handlers cannot tell them apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st

from tests.fronts.front_world import SocketWorld
from tests.web.lane_requests import NAMED, PARTS, USUAL, Step, odd_in, steps
from tests.web.lane_world import outcome

# A front looks at its connections once a second, so they may be idle, or wait for a body, for up to two seconds more.
# No sum of a few of these times falls between.
TIMES = (0.01, 1.0, 20.0, 55.0, 400.0, 3601.0)


def compare(steps: Sequence[Step], tokens: bool, holding: bool) -> None:
    """Check that the same happens with two fronts and without."""
    with_fronts, without = (outcome(SocketWorld(number, tokens, holding), steps) for number in (2, 0))
    for one, other in zip(with_fronts, without, strict=False):
        if one != other:
            note(f"with fronts: {one!r}\nwithout:     {other!r}")
            break
    assert with_fronts == without


@given(st.lists(steps(TIMES), min_size=1, max_size=8), st.sampled_from([True, True, True, False]), st.booleans())
@example([("send", 0, USUAL, [])] * 3, True, False)
@example(
    [("send", 0, USUAL, []), ("leave", 0), ("send", 1, USUAL, []), ("chunk",), ("answer",), ("answer",)], True, True
)
@example([("send", 0, USUAL, []), ("send", 0, USUAL, [9]), ("answer",), ("answer",)], True, True)
@example([("send", 0, USUAL, []), ("finish_up",), ("answer",)], True, True)
@example([("send", 0, USUAL, []), ("send", 1, USUAL, []), ("kill",), ("advance", 3601.0)], True, True)
@example([("send", 0, NAMED, [])] * 5, True, False)
@example([("send", 0, NAMED, []), ("send", 1, NAMED, []), ("answer",), ("send", 1, NAMED, []), ("answer",)], True, True)
@example([("send", 0, USUAL, []), ("chunk",), ("chunk",), ("send", 0, USUAL, []), ("answer",)] * 2, True, True)
@example([("stop_reading", 0), ("send", 0, USUAL, []), ("send", 0, USUAL, []), ("read_on", 0)], True, False)
def test_same_as_without(steps: list[Step], tokens: bool, holding: bool) -> None:
    """Whatever clients send, and whatever comes of it: fronts change nothing that can be seen."""
    compare(steps, tokens, holding)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("tokens", [True, False])
def test_each_part(name: str, tokens: bool) -> None:
    """Requests that are usual but for one part, with each body, each on a connection that has had another."""
    compare(odd_in(name), tokens, holding=False)
