# SPDX-License-Identifier: Apache-2.0
"""
Tests for who has the last word about tokens: environment over command line over file.

The rule itself is tested with all combinations elsewhere; here it is what a real
server, asked without a key, does about it.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

SWITCH = "disable_token_authorization"
VARIABLE = "TS_DISABLE_TOKEN_AUTHORIZATION"


@pytest.mark.parametrize(
    ("in_file", "flags", "variable", "enabled"),
    [
        pytest.param({SWITCH: "false"}, ["--disable-token-auth"], None, False, id="first example of the seed"),
        pytest.param({SWITCH: "true"}, [], None, False, id="second example of the seed"),
        pytest.param({}, [], "true", True, id="the variable alone does nothing"),
        pytest.param({"enable_envvars_config": "false"}, ["--dt"], "false", False, id="nor against the flag"),
        pytest.param({"enable_envvars_config": "true"}, ["--dt"], "false", True, id="variable over flag"),
        pytest.param({"enable_envvars_config": "true", SWITCH: "true"}, [], "FALSE", True, id="variable over file"),
        pytest.param({"enable_envvars_config": "True", SWITCH: "false"}, [], "True", False, id="variable disables"),
    ],
)
def test_switch(
    make_server: MakeServer, in_file: dict[str, str], flags: list[str], variable: str | None, enabled: bool
) -> None:
    """The environment counts if the file lets it, then the flag, then the file."""
    server = make_server(None, **in_file)
    if variable is not None:
        server.environ[VARIABLE] = variable
    server.start(*flags)
    assert server.curl("inference", "/ping").status == (400 if enabled else 200)
    assert server.curl("management", "/models").status == (400 if enabled else 200)
    # Without tokens there is nothing to replace.
    assert server.curl("management", "/token?type=inference").status == (400 if enabled else 404)
    assert server.key_file.exists() == enabled
    assert ("Token Authorization Enabled" in server.log()) == enabled
    assert ("Token Authorization is disabled" in server.log()) == (not enabled)
    ignored = f"environment variable {VARIABLE} is ignored"
    assert (ignored in server.log()) == (
        variable is not None and in_file.get("enable_envvars_config") in {None, "false"}
    )


@pytest.mark.parametrize(("switch", "minutes"), [("true", 2.5), ("false", 30.0)])
def test_lifetime_of_environment(make_server: MakeServer, switch: str, minutes: float) -> None:
    """The predecessor's variable for the lifetime counts under the same condition."""
    server = make_server(None, enable_envvars_config=switch, token_expiration_min=30)
    server.environ["TS_TOKEN_EXPIRATION_TIME_MIN"] = "2.5"
    began = datetime.now(timezone.utc)
    server.start()
    ended = datetime.now(timezone.utc)
    for kind in ("management", "inference"):
        assert began <= expiry(server, kind) - timedelta(minutes=minutes) <= ended
    assert "expiration time" not in json.loads(server.key_file.read_text())["API"]


def test_expiry(make_server: MakeServer) -> None:
    """Keys really expire, when the file says they do, and ``/token`` brings them back."""
    server = make_server(None, token_expiration_min=0.025)
    server.start()
    roles = {"inference": "/ping", "management": "/models"}
    lifetime = timedelta(seconds=1.5)
    for role, path in roles.items():

        def served(role: str = role, path: str = path) -> bool:
            began = datetime.now(timezone.utc)
            replaced = server.curl("management", f"/token?type={role}", key="API")
            assert replaced.status == 200
            assert began <= expiry(server, role) - lifetime <= datetime.now(timezone.utc)
            answer = server.curl(role, path, key=role)
            # On a busy machine it may be over before it is used.
            assert answer.status == 200 or datetime.now(timezone.utc) >= expiry(server, role)
            return answer.status == 200

        server.until(served, "a key to be used in its time")
        server.until(lambda role=role, path=path: server.curl(role, path, key=role).status == 400, "the expiry")  # type: ignore[misc]
        assert datetime.now(timezone.utc) >= expiry(server, role)
        refused = server.curl(role, path, key=role)
        assert refused.json()["type"] == "InvalidKeyException"
        assert "Token either incorrect, expired, or not provided correctly" in refused.json()["message"]

        dead = server.keys()[role]
        server.until(served, "another key to be used in its time")
        assert server.keys()[role] != dead
        assert server.curl(role, path, bearer=dead).status == 400
        assert f"The {role} token" in server.log()
    server.until(lambda: "has expired" in server.log(), "the line that says so")


def expiry(server: Server, kind: str) -> datetime:
    """Read when a key expires."""
    said = json.loads(server.key_file.read_text())[kind]["expiration time"]
    assert said.endswith("Z")
    return datetime.fromisoformat(said.replace("Z", "+00:00"))
