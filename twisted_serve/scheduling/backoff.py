# SPDX-License-Identifier: Apache-2.0
"""
Compute the delay before a failed worker is restarted.
"""

from __future__ import annotations

# In seconds (docs/torchserve/rest_api.md §4.1); about a dozen attempts fit into the recovery window of 300 s.
_DELAYS = (1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)


def retry_delay(attempt: int) -> float:
    """
    Return the seconds to wait before a restart.

    :param attempt: The number of restarts since a worker last loaded.
    """
    return float(_DELAYS[min(attempt, len(_DELAYS) - 1)])
