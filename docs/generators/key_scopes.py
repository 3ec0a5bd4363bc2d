# SPDX-License-Identifier: Apache-2.0
"""
Render what each scope of a named key opens on each transport, as a table in ``docs/tokens.md``.

It is made from the scopes, the routes and the methods.  After a change of them, in the root of the repository::

    python -m docs.generators.key_scopes
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twisted_serve.auth.named.scopes import SCOPES
from twisted_serve.interfaces import Operation
from twisted_serve.listening.roles import Role
from twisted_serve.rpc.methods import SERVICES
from twisted_serve.web.api.surface import routes_of

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "tokens.md"

#: The block of the page that is made here stands between these lines.
BEGIN: Final = "<!-- Made by `python -m docs.generators.key_scopes`: change the scopes, the routes or the methods. -->"
END: Final = "<!-- End of the scopes. -->"

_LISTENERS: Final = (Role.INFERENCE, Role.MANAGEMENT, Role.METRICS, Role.INFERENCE | Role.MANAGEMENT)


def requests_of(operation: Operation) -> list[str]:
    """Return the requests of HTTP that are an operation on some listener."""
    routes = [route for roles in _LISTENERS for route in routes_of(roles)]
    found = [f"{route.method.upper()} {route.path}" for route in routes if route.operation is operation]
    return list(dict.fromkeys(found))


def calls_of(operation: Operation) -> list[str]:
    """Return the methods of gRPC that are an operation, without the packages of their services."""
    return list(
        dict.fromkeys(
            f"{service.rpartition('.')[2]}/{method}"
            for service, listed in SERVICES.items()
            for method, other in listed.methods.items()
            if other is operation
        )
    )


def _rows() -> Iterator[str]:
    yield "| scope | operation | HTTP | gRPC |"
    yield "| --- | --- | --- | --- |"
    for scope, operations in SCOPES.items():
        for operation in sorted(operations, key=lambda operation: operation.value):
            name = operation.name.lower().replace("_", " ")
            cells = [", ".join(f"`{each}`" for each in found(operation)) for found in (requests_of, calls_of)]
            yield "| " + " | ".join([f"`{scope}`", name, *(cell or "none" for cell in cells)]) + " |"


def block() -> str:
    """Return the block of the page, in Markdown."""
    return "\n".join((BEGIN, "", *_rows(), "", END))


def with_block(page: str) -> str:
    """Return a page with the block as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + block() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_block(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
