# SPDX-License-Identifier: Apache-2.0
"""Hold an application's authorizer against targets near to the described paths, as an attacker would try them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

from tests.web.authorizers import UNKNOWN, Saying
from tests.web.test_truth_table import (
    EXTRAS,
    FEW,
    METHODS,
    METRICS_TOKEN,
    Listener,
    all_targets,
    ask,
    listeners_of,
    request,
    said,
    serve,
)
from twisted_serve.auth.scopes import required
from twisted_serve.auth.targets import parse_target
from twisted_serve.interfaces import Operation
from twisted_serve.testing.server import Role
from twisted_serve.web.api.access import is_open

SEPARATE, SHARED = listeners_of("I,M,X"), listeners_of("IMX")
_ROLES = {"I": Role.INFERENCE, "M": Role.MANAGEMENT, "X": Role.METRICS}

targets = lru_cache(all_targets)


@pytest.fixture(autouse=True)
def _metrics_token() -> Iterator[None]:
    METRICS_TOKEN.write_text("a" * 40 + "\n")
    METRICS_TOKEN.chmod(0o600)
    yield
    METRICS_TOKEN.unlink()


def roles_of(listener: Listener) -> Role:
    """Return the roles of a listener."""
    roles = Role(0)
    for letter in listener.roles:
        roles |= _ROLES[letter]
    return roles


@pytest.mark.parametrize(
    ("listener", "extra"),
    [
        *((listener, "ts_open_inference_protocol=true") for listener in (*SEPARATE, *SHARED)),
        *((listener, "endpoints of plug-ins") for listener in SHARED),
    ],
    ids=str,
)
def test_admitted(listener: Listener, extra: str) -> None:
    """
    An admitted client gets the answers of a server without tokens.

    So no route is reached under another operation than the one that was asked about: that would be a 500.
    """
    authorizer = Saying()
    with (
        serve(listener.layout, extra, authorizer=authorizer) as own,
        serve(listener.layout, extra, tokens=False) as unguarded,
    ):
        for target in targets():
            for method in METHODS:
                sent = request(method, target)
                assert said(ask(own, listener, sent)) == said(ask(unguarded, listener, sent)), (method, target)
    assert all(
        asked.operation in (None, Operation.SCRAPE_METRICS) or required(asked.operation) is asked.scope
        for asked in authorizer.asked
    )


@pytest.mark.parametrize(
    ("listener", "extra"),
    [*((listener, None) for listener in SEPARATE), *((listener, extra) for listener in SHARED for extra in EXTRAS)],
    ids=str,
)
def test_refused(listener: Listener, extra: str | None) -> None:
    """A refused client gets only what is public, and metrics if they have a token; each request is one question."""
    authorizer, roles = Saying(lambda _asked: UNKNOWN), roles_of(listener)
    with serve(listener.layout, extra, authorizer=authorizer) as own:
        # No target at all is no request.
        for target in filter(None, targets()):
            parsed = parse_target(target.encode("latin-1"))
            for method in FEW:
                public = is_open(method.encode(), parsed, roles, extra == "token_exempt_ping=true")
                if parsed.flaw is not None:
                    public = roles == Role.METRICS
                elif parsed.first == "metrics" and roles & Role.METRICS:
                    public = extra == "metrics_token_file"
                before = len(authorizer.asked)
                answer = said(ask(own, listener, request(method, target)))
                refused = answer == "refused with 401" and len(authorizer.asked) == before + 1
                assert refused is not public, (method, target, answer)
