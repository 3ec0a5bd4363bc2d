# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.scopes``.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.named.scopes import MOST_SCOPES, SCOPES, KeyScopes, check_scope, unmatched
from twisted_serve.auth.needs import Need
from twisted_serve.auth.scopes import required
from twisted_serve.interfaces import Operation, TokenKind

WITH_KEY = [operation for operation in Operation if required(operation) is not None]

# Names and patterns of few characters, so that many match.
NAMES = st.text("ab.-", min_size=1, max_size=4)
PATTERNS = st.text("ab*?.-", min_size=1, max_size=4)


def need(operation: Operation, model: str | None = None) -> Need:
    return Need(operation, required(operation) or TokenKind.MANAGEMENT, model)


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches, character by character: the definition, without fnmatch."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(matches(pattern[1:], name[at:]) for at in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and matches(pattern[1:], name[1:])


class ScopesTests(SynchronousTestCase):
    """Tests for what scopes allow."""

    def test_one_scope_each(self) -> None:
        """Each operation that needs a key is in exactly one scope, and scraping metrics, which may need one."""
        listed = sorted(operation.name for operations in SCOPES.values() for operation in operations)
        self.assertEqual(listed, sorted([operation.name for operation in WITH_KEY] + ["SCRAPE_METRICS"]))

    def test_no_other(self) -> None:
        """A scope allows its own operations, and none of another scope."""
        for text, operations in SCOPES.items():
            scopes = KeyScopes((text,))
            allowed = {
                operation for operation in [*WITH_KEY, Operation.SCRAPE_METRICS] if scopes.allows(need(operation))
            }
            self.assertEqual(allowed, operations, text)

    def test_kinds(self) -> None:
        """No scope mixes operations of two of the three keys, metrics apart, which may be public."""
        for text, operations in SCOPES.items():
            self.assertLessEqual(len({required(operation) for operation in operations} - {None}), 1, text)

    def test_model(self) -> None:
        """A pattern limits inference to models and workflows that it matches, in their case, and opens nothing else."""
        scopes = KeyScopes(("inference:resnet*", "inference:v?"))
        for operation in SCOPES["inference"]:
            for model, allowed in (("resnet", True), ("resnet-50", True), ("v2", True), (None, True), ("", False)):
                self.assertEqual(scopes.allows(need(operation, model)), allowed, (operation, model))
            for model in ("Resnet", "xresnet", "v", "v22", "bert", "resne", "resnet\n"[:5]):
                self.assertFalse(scopes.allows(need(operation, model)), (operation, model))
        for operation in set(WITH_KEY) - SCOPES["inference"]:
            self.assertFalse(scopes.allows(need(operation, "resnet")), operation)

    def test_no_operation(self) -> None:
        """What has no operation needs the whole scope of inference; on the management listener no scope opens it."""
        for text in [*SCOPES, "inference:*"]:
            for kind in TokenKind:
                allowed = KeyScopes((text,)).allows(Need(None, kind))
                self.assertEqual(allowed, text == "inference" and kind is TokenKind.INFERENCE, (text, kind))

    def test_many(self) -> None:
        """A key has no more scopes than a request can be compared with quickly."""
        self.assertEqual(len(KeyScopes(("inference:a",) * MOST_SCOPES).texts), MOST_SCOPES)
        with self.assertRaisesRegex(ValueError, f"a key has {MOST_SCOPES + 1} scopes, more than {MOST_SCOPES}"):
            KeyScopes(("inference:a",) * (MOST_SCOPES + 1))

    @given(st.lists(PATTERNS, min_size=1, max_size=3), NAMES)
    def test_patterns(self, patterns: list[str], name: str) -> None:
        """A name is seen if one of the patterns matches, as the definition says."""
        scopes = KeyScopes(tuple(f"inference:{pattern}" for pattern in patterns))
        expected = any(matches(pattern, name) for pattern in patterns)
        self.assertEqual(scopes.sees(name), expected)
        self.assertEqual(scopes.allows(need(Operation.PREDICT, name)), expected)

    def test_unknown(self) -> None:
        """A text that is no scope is named, with those that are."""
        for text in (
            "",
            "inference:",
            "Inference",
            "inference ",
            "models",
            "models:*",
            "*",
            "inference:a b",
            "inference:\u00e9",
        ):
            with self.assertRaises(ValueError) as raised:
                KeyScopes((text,))
            self.assertIn(repr(text), str(raised.exception))
        self.assertRaises(ValueError, check_scope, "inference:" + 257 * "a")
        self.assertRaises(ValueError, KeyScopes, ())

    def test_unmatched(self) -> None:
        """A pattern without a model is reported; a scope without a pattern never is."""
        scopes = KeyScopes(("inference:a*", "inference:b*", "models:read"))
        self.assertEqual(unmatched(scopes, ["abc"]), ["inference:b*"])
        self.assertEqual(unmatched(KeyScopes(("inference",)), []), [])
