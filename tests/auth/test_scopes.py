# SPDX-License-Identifier: Apache-2.0
"""Tests for the scopes of operations."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.scopes import _OPERATIONS, Operation, required
from twisted_serve.auth.tokens import TokenKind


class ScopeTests(SynchronousTestCase):
    """Tests for :func:`required`."""

    def test_each_once(self) -> None:
        """Each operation has one entry: two would make the later one win."""
        listed = [operation for operations in _OPERATIONS.values() for operation in operations]
        self.assertEqual(len(listed), len(set(listed)))
        self.assertEqual(set(listed), set(Operation))

    def test_public(self) -> None:
        """Nothing that concerns models or keys is public."""
        public = {operation for operation in Operation if required(operation) is None}
        self.assertEqual(public, {Operation.PROBE, Operation.DESCRIBE_API, Operation.SCRAPE_METRICS})

    def test_kinds(self) -> None:
        """The kinds of keys are not ranked: keys are changed with the API key only, and it opens nothing else."""
        self.assertIs(required(Operation.PREDICT), TokenKind.INFERENCE)
        self.assertIs(required(Operation.REGISTER_MODEL), TokenKind.MANAGEMENT)
        of_keys = {
            Operation.REPLACE_KEY,
            Operation.LIST_KEYS,
            Operation.CREATE_KEY,
            Operation.CHANGE_KEY,
            Operation.REVOKE_KEY,
        }
        self.assertEqual({operation for operation in Operation if required(operation) is TokenKind.API}, of_keys)
