# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/grpc.md``: its commands, run as they stand there, and its tables against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from twisted_serve.auth.scopes import required
from twisted_serve.errors import ServeError
from twisted_serve.listening.roles import Role
from twisted_serve.rpc import services
from twisted_serve.rpc.methods import SERVICES, own_scope
from twisted_serve.rpc.statuses import Code, code_of_http

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

PAGE = "grpc.md"
TEXT = (Path(__file__).resolve().parents[2] / "docs" / PAGE).read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """Return the cells of the table below a line."""
    found = re.search(rf"^{re.escape(head)}\n\|[-:| ]+\|\n((?:\|.*\n)+)", TEXT, re.M)
    assert found is not None, head
    return [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in found[1].splitlines()]


def kinds_of(error: type[ServeError]) -> Iterator[type[ServeError]]:
    """Yield a class of errors and those below it."""
    yield error
    for kind in error.__subclasses__():
        yield from kinds_of(kind)


@pytest.mark.integration
def test_commands(read_blocks: ReadBlocks, run_commands: RunCommands) -> None:
    """A client of ten lines, with stubs from the files that the package ships, prints what the page says."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    run_commands(read_blocks(PAGE, "sh"))


def test_codes() -> None:
    """The table has the number of each code, and every code that an error of the server has."""
    assert services.__path__
    named = {code.strip("`"): int(number) for code, number, _when in rows("| code | number | when |")}
    assert named == {code.name: code.value for code in Code if code.name in named}
    ours = {kind.grpc_status for kind in kinds_of(ServeError)} | {"OK", "CANCELLED"}
    assert ours | {code_of_http(status).name for status in range(600)} == named.keys()


def test_services() -> None:
    """The table has every service, with its listeners and the keys of its methods."""
    described = {}
    for name, listener, key in rows("| service | listener | key |"):
        for full in re.findall(r"`([a-z][\w.]+\.[A-Z]\w+)`", name):
            described[full] = (listener, key)
    alpha = "grpc.reflection.v1alpha.ServerReflection"
    assert described.keys() | {alpha} == SERVICES.keys()
    for name, (listener, key) in described.items():
        service = SERVICES[name]
        assert (listener == "both") == (service.roles == Role.INFERENCE | Role.MANAGEMENT), name
        assert listener == "both" or Role[listener.upper()] & service.roles, name
        scopes = {own_scope(service.roles) if op is None else required(op) for op in service.methods.values()}
        needed = {"none" if scope is None else getattr(scope, "value", str(scope)) for scope in scopes}
        if "listener's" not in key:
            assert needed == set(re.findall(r"\b(none|inference|management)\b", key)), name


def test_probes(read_blocks: ReadBlocks) -> None:
    """The probes are YAML for Kubernetes, on the port and with a name that health knows."""
    [block] = read_blocks(PAGE, "yaml")
    probes = yaml.safe_load(block.text)
    assert probes == {
        "readinessProbe": {"grpc": {"port": 7070}},
        "livenessProbe": {"grpc": {"port": 7070, "service": "liveness"}},
    }
