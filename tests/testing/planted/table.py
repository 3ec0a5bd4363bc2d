# SPDX-License-Identifier: Apache-2.0
"""
List the planted bugs.
"""

from __future__ import annotations

from tests.testing.planted import in_files, in_kept, in_lives, in_overlaps, in_requests, in_rotation

PLANTED = (*in_lives.BUGS, *in_rotation.BUGS, *in_files.BUGS, *in_requests.BUGS, *in_overlaps.BUGS, *in_kept.BUGS)
