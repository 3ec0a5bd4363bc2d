# SPDX-License-Identifier: Apache-2.0
"""
Keep garbage collections short.
"""

from __future__ import annotations

import gc


def keep_all() -> None:
    """
    Exclude the objects that exist now from later garbage collections: most of them live as long as the process.

    A collection of all 80,000 objects of a started server takes up to 66 ms, in which no client is answered.
    """
    gc.collect()
    gc.freeze()
