# SPDX-License-Identifier: Apache-2.0
"""
This module implements the token of ``/metrics``: one that the operator has made, in a file, as Prometheus reads it.

The file is read for each request: there are few, and whoever replaces it (a
Kubernetes secret, say) need tell nobody.  What cannot be read lets nobody in.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest
from pathlib import Path

from twisted.logger import Logger

from twisted_serve.auth.gate import bearer_token
from twisted_serve.auth.keyring import Reason
from twisted_serve.reading import read_small

# A shorter one is a slip.
SHORTEST = 8
LONGEST = 512


class MetricsToken:
    """
    A token in a file.

    :ivar secret: The token as it was when it was read last; for whoever keeps it out of the log.
    :raise ValueError: for a file that has none.
    """

    _log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = False
        try:
            self.secret = self._read().decode("utf-8", "replace")
        except (OSError, ValueError) as e:
            raise ValueError(f"metrics_token_file must be a file with a token, not {path}: {e}") from e

    def admits(self, authorization: Sequence[bytes]) -> bool:
        """Say whether a request with these ``Authorization`` headers may see the metrics."""
        try:
            expected = self._read()
        except (OSError, ValueError) as e:
            if not self._complained:
                self._complained = True
                self._log.error("Nobody can read the metrics: {path}: {error}", path=str(self._path), error=e)
            return False
        self._complained = False
        self.secret = expected.decode("utf-8", "replace")
        presented = bearer_token(authorization)
        return not isinstance(presented, Reason) and compare_digest(presented, expected)

    def _read(self) -> bytes:
        token = read_small(self._path, LONGEST + 2).content.strip()
        if not SHORTEST <= len(token) <= LONGEST or token.split() != [token]:
            raise ValueError(f"what is in it is not one word of {SHORTEST} to {LONGEST} bytes")
        return token
