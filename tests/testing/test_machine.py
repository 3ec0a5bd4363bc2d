# SPDX-License-Identifier: Apache-2.0
"""
Run the public state machine over keys and time as users do: unchanged, and against their own settings.
"""

from __future__ import annotations

from hypothesis import settings

from twisted_serve.testing.machine import TokenMachine
from twisted_serve.testing.named_machine import NamedKeyMachine

# Each step is several requests to a whole server; these many look at every rule in company.
MODEST = settings(max_examples=12, stateful_step_count=12)
FEW = settings(max_examples=6, stateful_step_count=12)


class ShortLivedMachine(TokenMachine):
    """Keys that live for five minutes, with the refusals of RFC 6750."""

    options = {"token_expiration_min": 5, "token_refusal_status": 401}


class OverlappingMachine(TokenMachine):
    """Replaced keys live on for a while."""

    options = {"token_expiration_min": 5, "token_overlap_sec": 90}


class AutomaticMachine(TokenMachine):
    """The server replaces keys itself."""

    options = {"token_expiration_min": 5, "token_auto_rotate": True}


class AheadMachine(TokenMachine):
    """The server replaces keys itself, before they end."""

    options = {"token_expiration_min": 5, "token_auto_rotate": True, "token_overlap_sec": 90}


class KeepingMachine(TokenMachine):
    """A start goes on with the keys of the last run."""

    options = {"token_expiration_min": 5, "token_on_restart": "keep", "token_overlap_sec": 90}


class StrictNamedMachine(NamedKeyMachine):
    """Named keys without an overlap, with the refusals of RFC 6750."""

    options = {"token_refusal_status": 401}


DefaultMachineTests = TokenMachine.TestCase
DefaultMachineTests.settings = MODEST
ShortLivedMachineTests = ShortLivedMachine.TestCase
ShortLivedMachineTests.settings = MODEST
OverlappingMachineTests = OverlappingMachine.TestCase
OverlappingMachineTests.settings = FEW
AutomaticMachineTests = AutomaticMachine.TestCase
AutomaticMachineTests.settings = FEW
AheadMachineTests = AheadMachine.TestCase
AheadMachineTests.settings = FEW
KeepingMachineTests = KeepingMachine.TestCase
KeepingMachineTests.settings = FEW
NamedKeyMachineTests = NamedKeyMachine.TestCase
NamedKeyMachineTests.settings = MODEST
StrictNamedMachineTests = StrictNamedMachine.TestCase
StrictNamedMachineTests.settings = FEW
