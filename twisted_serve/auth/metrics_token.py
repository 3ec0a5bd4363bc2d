# SPDX-License-Identifier: Apache-2.0
"""
Authorize ``/metrics`` with a token that the operator keeps in a file, as Prometheus does.

The file is read for each request: there are few such requests, and a replaced file (a
Kubernetes secret, for example) is effective without a restart.  While the file cannot
be read, every request is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest
from pathlib import Path

from twisted.logger import Logger

from twisted_serve.auth.gate import bearer_token
from twisted_serve.auth.keyring import Reason
from twisted_serve.system.small_files import read_small

_log = Logger("twisted_serve.auth")

# In bytes; a shorter token is taken for a mistake.
SHORTEST = 8
LONGEST = 512


class MetricsToken:
    """
    A token in a file.

    :ivar secret: The token as last read; for the redaction of logs.
    :raise ValueError: for a file without a token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._error_logged = False
        try:
            self.secret = self._read().decode("utf-8", "replace")
        except (OSError, ValueError) as e:
            raise ValueError(f"metrics_token_file must be a file with a token, not {path}: {e}") from e

    def admits(self, authorization: Sequence[bytes]) -> bool:
        """Return whether a request with these ``Authorization`` headers may read the metrics."""
        try:
            expected = self._read()
        except (OSError, ValueError) as e:
            if not self._error_logged:
                self._error_logged = True
                _log.error("Every request for metrics is refused: {path}: {error}", path=str(self._path), error=e)
            return False
        self._error_logged = False
        self.secret = expected.decode("utf-8", "replace")
        presented = bearer_token(authorization)
        return not isinstance(presented, Reason) and compare_digest(presented, expected)

    def _read(self) -> bytes:
        token = read_small(self._path, LONGEST + 2).content.strip()
        if not SHORTEST <= len(token) <= LONGEST or token.split() != [token]:
            raise ValueError(f"what is in it is not one word of {SHORTEST} to {LONGEST} bytes")
        return token
