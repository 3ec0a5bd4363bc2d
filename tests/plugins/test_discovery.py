# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.plugins`, with distributions that are made up, in directories of the test."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.logger import capturedLogs, formatEvent

from twisted_serve.endpoints import GROUP, Endpoint
from twisted_serve.plugins.discovery import PluginError, find_endpoints

SOURCE = """
from twisted_serve.endpoints import Endpoint, EndpointAnswer

def answer(request, context):
    return EndpointAnswer(b"plugged")

endpoint = Endpoint({segment!r}, "inference", answer)
nothing = 3
"""


@pytest.fixture(autouse=True)
def _path() -> Iterator[None]:
    """Leave what can be imported as it was."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("plugged_"):
            del sys.modules[name]


def distribute(directory: Path, name: str, source: str | None = None, attribute: str = "endpoint") -> None:
    """Make a distribution with a plug-in, as ``pip install --target`` does."""
    directory.mkdir(exist_ok=True)
    module = f"plugged_{name}"
    (directory / f"{module}.py").write_text(SOURCE.format(segment=name) if source is None else source)
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name}-point = {module}:{attribute}\n")


def refusal(directory: Path | None, *named: str) -> str:
    """Return why the plug-ins are not served."""
    with pytest.raises(PluginError) as caught:
        find_endpoints(directory, named)
    return str(caught.value)


def test_directory(tmp_path: Path) -> None:
    """All plug-ins of a directory are served, each with a line in the log."""
    distribute(tmp_path, "a")
    distribute(tmp_path, "b")
    with capturedLogs() as events:
        endpoints = find_endpoints(tmp_path, ())
    assert {endpoint.segment: endpoint.origin for endpoint in endpoints} == {
        "a": "a-point of a 1.0",
        "b": "b-point of b 1.0",
    }
    assert "Endpoint /a (inference) is served by the plug-in a-point of a 1.0" in map(formatEvent, events)


def test_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed is served only if it is named."""
    distribute(tmp_path, "a")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_endpoints(None, ()) == ()
    [endpoint] = find_endpoints(None, ("a-point",))
    assert endpoint.segment == "a"
    assert refusal(None, "b-point") == (
        f"plugins names 'b-point', and no installed distribution has such an entry point in {GROUP}"
    )


def test_shadowing(tmp_path: Path) -> None:
    """A module in the directory of plug-ins takes the place of none of the server's."""
    distribute(tmp_path, "a")
    (tmp_path / "json.py").write_text("raise RuntimeError")
    find_endpoints(tmp_path, ())
    assert sys.path[-1] == str(tmp_path)
    find_endpoints(tmp_path, ())
    assert sys.path.count(str(tmp_path)) == 1


def test_java(tmp_path: Path) -> None:
    """A directory with nothing that can be served, as one of jars, is told of and does no harm."""
    (tmp_path / "endpoint.jar").touch()
    with capturedLogs() as events:
        assert find_endpoints(tmp_path, ()) == ()
    assert [event for event in events if "Java plug-ins cannot be used" in str(formatEvent(event))]


def test_two(tmp_path: Path) -> None:
    """Two plug-ins for one segment are refused, naming both."""
    distribute(tmp_path, "a")
    distribute(tmp_path, "b", SOURCE.format(segment="a"))
    assert re.fullmatch(
        r'Multiple plugins found for endpoint "a": (a-point of a 1\.0 and b-point of b 1\.0|b-.* and a-.*)',
        refusal(tmp_path),
    )


@pytest.mark.parametrize(
    ("source", "attribute", "why"),
    [
        ("raise OSError('no such device')", "endpoint", "cannot be imported: OSError: no such device"),
        ("syntax error", "endpoint", "cannot be imported: SyntaxError: .*"),
        (None, "missing", "cannot be imported: AttributeError: .*missing.*"),
        (None, "nothing", "is 3, which is no twisted_serve.endpoints.Endpoint"),
        (
            SOURCE.format(segment="token"),
            "endpoint",
            "cannot be imported: ValueError: an endpoint cannot be called 'token'.*",
        ),
    ],
)
def test_broken(tmp_path: Path, source: str | None, attribute: str, why: str) -> None:
    """A plug-in that cannot be served is refused, saying which and why."""
    distribute(tmp_path, "a", source, attribute)
    assert re.fullmatch(f"the plug-in a-point of a 1.0 {why}", refusal(tmp_path))


def test_shipped() -> None:
    """The entry points which the project declares for itself lead to endpoints."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    [part] = re.findall(rf'\[project\.entry-points\."{re.escape(GROUP)}"\]\n((?:.+\n)+)', project)
    declared = dict(re.findall(r'^([\w-]+) = "([\w.]+:\w+)"$', part, re.M))
    assert declared.keys() == {"sagemaker-execution-parameters", "sagemaker-ping"}
    for target in declared.values():
        module, _, attribute = target.partition(":")
        assert isinstance(getattr(__import__(module, fromlist=[attribute]), attribute), Endpoint)
