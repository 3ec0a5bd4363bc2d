# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.subcommands.output` and `moments`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from twisted_serve.subcommands.moments import in_words, parse_expiry, parse_moment, time_left, time_since
from twisted_serve.subcommands.output import Output, printable_lines

NOW = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)


def test_result(capsys: pytest.CaptureFixture[str]) -> None:
    """The result is words, or JSON with nothing else on standard output."""
    Output().result({"a": 1}, lambda: Output().line("one"))
    assert capsys.readouterr() == ("one\n", "")
    out = Output(as_json=True)
    with out.waiting("for it") as show:
        show("still")
    out.result({"a": "\x1b"}, lambda: out.line("one"))
    out.note("remark")
    said, remark = capsys.readouterr()
    assert json.loads(said) == {"a": "\x1b"}
    assert "\x1b" not in said
    assert remark == "remark\n"


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as their cells; without a terminal there are no colours and no blanks at the end."""
    Output().table(("name", "state"), [("a", "ready"), ("longer", None), ("b\nc", "")], ["green", None, None])
    assert capsys.readouterr().out == "name    state\na       ready\nlonger  -\nb c\n"
    Output().table(("name", "state"), [])
    assert capsys.readouterr().out == "name  state\n"


def test_terminal_control(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that a server says controls the terminal or forges a line of a table."""
    assert printable_lines("a\x1b]0;t\x07\x9b2J\r\u202eb\n\tc") == "a\\x1b]0;t\\x07\\x9b2J\\r\\u202eb\n\tc"
    out = Output()
    out.line("\x1b[2J")
    out.note("\x1b[2J")
    out.table(("n",), [("x\x1b[2J\ny",)])
    said, remark = capsys.readouterr()
    assert "\x1b" not in said + remark
    assert said.splitlines() == ["\\x1b[2J", "n", "x\\x1b[2J y"]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("never", {"expires": None}),
        ("30d", {"expires_in_sec": 30 * 86400}),
        ("12h", {"expires_in_sec": 43200}),
        ("90s", {"expires_in_sec": 90}),
        ("2w", {"expires_in_sec": 14 * 86400}),
        ("2027-01-31T10:00:00Z", {"expires": "2027-01-31T10:00:00Z"}),
        ("2027-01-31T10:00:00+02:00", {"expires": "2027-01-31T08:00:00Z"}),
    ],
)
def test_expiry(text: str, members: dict[str, object]) -> None:
    """An expiry is a duration, a date or never."""
    assert parse_expiry(text) == members


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "30 d", "9999999d", "2027-13-01", "soon", "Never", "1.5h"])
def test_no_expiry(text: str) -> None:
    """Anything else is refused, with the value."""
    with pytest.raises(ValueError, match="is no expiry: give 30d") as caught:
        parse_expiry(text)
    assert repr(text) in str(caught.value)


def test_local_date() -> None:
    """A date without a zone is local."""
    assert parse_moment("2027-01-31") == datetime(2027, 1, 31).astimezone()
    assert parse_moment("2027-01-31").tzinfo is not None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 m"), (3661, "1 h 1 m"), (90000, "1 d 1 h"), (86401, "1 d"), (864000, "10 d")],
)
def test_words(seconds: float, words: str) -> None:
    """A duration has its two largest units."""
    assert in_words(seconds) == words


def test_left() -> None:
    """The time until a date, in words."""
    assert time_left(None, NOW) == "never"
    assert time_left((NOW + timedelta(minutes=61)).isoformat(), NOW) == "in 1 h 1 m"
    assert time_left("2026-11-30T12:00:00Z", NOW) == "expired"
    assert time_left("odd", NOW) == "odd"
    assert time_left((NOW + timedelta(days=30, microseconds=-5)).isoformat(), NOW) == "in 30 d"
    assert time_since(None, NOW) is None
    assert time_since("2026-11-30T11:00:00Z", NOW) == "1 h ago"
    # A clock that was set back.
    assert time_since("2026-11-30T13:00:00Z", NOW) == "0 s ago"
    assert time_since("odd", NOW) == "odd"
