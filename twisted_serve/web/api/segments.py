# SPDX-License-Identifier: Apache-2.0
"""
List the first segments of paths that have a meaning on some listener.
"""

from __future__ import annotations

from typing import Final

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.web.api.surface import EVERY_ROUTE

#: No model is called by these at the beginning of a path.
CLAIMED: Final = frozenset(route.first for route in EVERY_ROUTE if route.first is not None)

#: No endpoint of a plug-in has these, since they must mean the same on every server: keys are replaced there, or the
#: route is public.  ``twisted_serve.endpoints``, which may not import this package, has a copy; a test compares them.
RESERVED: Final = frozenset(
    route.first for route in EVERY_ROUTE if route.first is not None and route.scope in (None, TokenKind.API)
)
