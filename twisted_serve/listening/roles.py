# SPDX-License-Identifier: Apache-2.0
"""
Define the roles of a listener.
"""

from __future__ import annotations

from enum import Flag, auto


class Role(Flag):
    """The role of a listener; a listener that shares its address has several."""

    INFERENCE = auto()
    MANAGEMENT = auto()
    METRICS = auto()
