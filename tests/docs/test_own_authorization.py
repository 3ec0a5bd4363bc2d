# SPDX-License-Identifier: Apache-2.0
"""Tests for what ``docs/embedding.md`` says on an application's own authorization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.testing import MemoryReactorClock

from twisted_serve.testing.server import MemoryServer

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks


def test_friends(read_blocks: ReadBlocks) -> None:
    """The page's authorizer does what its docstring says."""
    [block] = [each.text for each in read_blocks("embedding.md", "python") if "class Friends" in each.text]
    names: dict[str, Any] = {"reactor": MemoryReactorClock()}
    exec(block, names)
    friend = {"Authorization": "Friend of-a-friend"}
    with MemoryServer(models={"m": {}}, dependencies={"authorizer": names["dependencies"].authorizer}) as server:
        statuses = [
            server.request(method, path, headers=headers, body=body).status
            for method, path, headers, body in (
                ("POST", "/predictions/m", friend, b"1"),
                ("GET", "/models", friend, b""),
                ("POST", "/predictions/m", {"Authorization": "Friend x"}, b"1"),
                ("GET", "/livez", {}, b""),
            )
        ]
    assert statuses == [200, 403, 401, 200]
