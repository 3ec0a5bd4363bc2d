# SPDX-License-Identifier: Apache-2.0
"""
Run the public state machine over keys and time as users do: unchanged, and against their own settings.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from twisted_serve.auth.keyring import Keyring
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.machine import TokenMachine

# Each step is several requests to a whole server; these many look at every rule in company.
MODEST = settings(max_examples=12, stateful_step_count=12)


class ShortLivedMachine(TokenMachine):
    """Keys that live for five minutes, with the refusals of RFC 6750."""

    options = {"token_expiration_min": 5, "token_refusal_status": 401}


DefaultMachineTests = TokenMachine.TestCase
DefaultMachineTests.settings = MODEST
ShortLivedMachineTests = ShortLivedMachine.TestCase
ShortLivedMachineTests.settings = MODEST


def late_expiry(check: Callable[..., Any]) -> Callable[..., Any]:
    """Accept expired keys for another minute."""
    return lambda self, kind, presented, now: check(self, kind, presented, now - timedelta(minutes=1))


def date_alone(check: Callable[..., Any]) -> Callable[..., Any]:
    """Accept a key again, or longer, when the date is set back."""

    def checked(self: Keyring, kind: TokenKind, presented: bytes, now: datetime) -> Any:
        for live in self._live:
            live.ended = False
            live.deadline = None if live.deadline is None else float("inf")
        return check(self, kind, presented, now)

    return checked


def ranked_kinds(check: Callable[..., Any]) -> Callable[..., Any]:
    """Accept the management key for inference."""

    def checked(self: Keyring, kind: TokenKind, presented: bytes, now: datetime) -> Any:
        if kind is TokenKind.INFERENCE and self.keys.management.is_secret(presented):
            kind = TokenKind.MANAGEMENT
        return check(self, kind, presented, now)

    return checked


def forgetful_rotation(rotate: Callable[..., Any]) -> Callable[..., Any]:
    """Rotate without writing the file."""

    def rotated(self: Keyring, kind: TokenKind, now: datetime) -> Any:
        with patch.object(self, "_save", lambda keys: None):
            return rotate(self, kind, now)

    return rotated


class DefectTests(TestCase):
    """The machine finds these defects."""

    def assert_found(self, name: str, defect: Callable[[Any], Any]) -> None:
        # Found is enough: no time is spent on the smallest example.
        quiet = settings(MODEST, max_examples=40, database=None, print_blob=False, phases=[Phase.generate])
        with patch.object(Keyring, name, defect(getattr(Keyring, name))), self.assertRaises(AssertionError):
            run_state_machine_as_test(TokenMachine, settings=quiet)

    def test_late_expiry(self) -> None:
        """Keys which open after their expiry are found."""
        self.assert_found("check", late_expiry)

    def test_date_alone(self) -> None:
        """Keys with an end that depends on the date alone are found."""
        self.assert_found("check", date_alone)

    def test_ranked_kinds(self) -> None:
        """A key that grants another key's kind is found."""
        self.assert_found("check", ranked_kinds)

    def test_forgetful_rotation(self) -> None:
        """A rotation which does not reach the file is found."""
        self.assert_found("rotate", forgetful_rotation)
