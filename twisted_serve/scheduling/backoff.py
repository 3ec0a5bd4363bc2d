# SPDX-License-Identifier: Apache-2.0
"""
This module implements how long a worker that failed is left alone before it is started again.
"""

from __future__ import annotations

# docs/torchserve/rest_api.md §4.1; about a dozen attempts fit into the recovery window of 300 s.
_DELAYS = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)


def retry_delay(attempt: int) -> float:
    """
    Say how many seconds to wait before a restart.

    :param attempt: How many restarts there have been since a worker last loaded.
    """
    return float(_DELAYS[min(attempt, len(_DELAYS) - 1)])
