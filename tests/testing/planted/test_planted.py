# SPDX-License-Identifier: Apache-2.0
"""
Plant bugs in the handling of keys, and find each with the state machine and with the property of the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.testing.planted.bug import Concern, Planted
from tests.testing.planted.in_named import NAMED
from tests.testing.planted.table import PLANTED
from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.named_machine import NamedKeyMachine

# Found is enough: no time is spent on the smallest example.
QUICK = settings(
    max_examples=100,
    stateful_step_count=15,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    print_blob=False,
    deadline=None,
)

# The property has the default settings.
ABOUT_LIVES = [bug for bug in PLANTED if bug.concerns & (Concern.EXPIRY | Concern.ROTATION) and not bug.options]

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"


@pytest.fixture(scope="module")
def ten_lines() -> Iterator[Callable[[], None]]:
    """The property of the documentation, with the default number of examples."""
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)[:1]
    settings.register_profile("before", settings())
    settings.register_profile("quick", QUICK)
    settings.load_profile("quick")
    try:
        names: dict[str, Callable[[], None]] = {}
        exec(code, names)
        yield names["test_key_opens_until_it_expires_or_is_replaced"]
    finally:
        settings.load_profile("before")


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_machine(bug: Planted) -> None:
    """The machine finds the bug, and says in words which it is."""

    class Machine(TokenMachine):
        options = bug.options

    with bug.plant(), pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Machine, settings=QUICK)
    assert re.search(bug.told, str(caught.value).partition("\n")[0])


@pytest.mark.parametrize("bug", NAMED, ids=lambda bug: bug.name)
def test_named(bug: Planted) -> None:
    """The machine of named keys finds the bug, and says in words which it is."""
    with bug.plant(), pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(NamedKeyMachine, settings=QUICK)
    assert re.search(bug.told, str(caught.value).partition("\n")[0])


@pytest.mark.parametrize("bug", ABOUT_LIVES, ids=lambda bug: bug.name)
def test_property(bug: Planted, ten_lines: Callable[[], None]) -> None:
    """The property of the documentation finds the bug."""
    with bug.plant(), pytest.raises(AssertionError):
        ten_lines()


def test_story() -> None:
    """The smallest example tells what happened, when, and what was wrong; it is found in seconds."""
    [bug] = [bug for bug in PLANTED if bug.name == "rotation keeps the old key"]
    whole = settings(QUICK, phases=[Phase.generate, Phase.shrink])
    with bug.plant(), pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(TokenMachine, settings=whole)
    assert str(caught.value.args[0]).partition("\n")[0] == (
        "a former management key opened GET /models at 00:00:01, which had been replaced"
    )
    told = "\n".join(getattr(caught.value, "__notes__", []))
    assert re.findall("# (.*)", told) == [
        "00:00:00  the server starts; its keys live for 1 h",
        "00:00:01  1 s have passed",
        "00:00:01  the API key replaces the management key",
        "00:00:01  the server stops",
    ]
