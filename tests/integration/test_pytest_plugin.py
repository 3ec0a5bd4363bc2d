# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.testing.pytest_plugin`: pytest finds the fixtures, and nothing happens without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

# Runs after the tests below that are unaware of the kit: pytest keeps the order of a file.
INERT = """
import sys

def test_inert():
    assert "twisted_serve.testing.pytest_plugin" in sys.modules
    ours = {name for name in sys.modules if name.startswith("twisted_serve.")}
    assert ours == {"twisted_serve.testing", "twisted_serve.testing.pytest_plugin"}
    heavy = {"twisted", "treq", "klein", "hypothesis", "attr", "prometheus_client"}
    assert not heavy & set(sys.modules)
"""

FIXTURES = """
import pytest

pytestmark = pytest.mark.memory_server(models={"greet": {}}, options={"token_expiration_min": 5})

closed = []

def test_usual(memory_server, virtual_clock):
    key = memory_server.keys.inference.secret
    ask = lambda: memory_server.request("POST", "/predictions/greet", key, body=b"Ada")
    assert (ask().status, ask().body) == (200, b"Ada")
    virtual_clock.advance(300)
    assert ask().status == 400
    closed.append(memory_server)

def test_closed():
    [server] = closed
    assert not server.directory.exists()
    with pytest.raises(LookupError):
        server.keys

@pytest.mark.memory_server(options={"token_expiration_min": 10})
class TestOfClass:
    def test_closest(self, memory_server):
        assert memory_server.options.token_expiration_min == 10
        assert memory_server.options.load_models == "greet"

    @pytest.mark.memory_server(models=None, seed=1)
    def test_of_function(self, memory_server):
        assert memory_server.options.token_expiration_min == 10
        assert memory_server.options.load_models is None

def test_several(make_memory_server, memory_server, virtual_clock):
    other = make_memory_server({"token_expiration_min": 1}, seed=1)
    assert other.keys != memory_server.keys
    virtual_clock.advance(60)
    for server, status in (other, 400), (memory_server, 200):
        assert server.request("GET", "/ping", server.keys.inference.secret).status == status
    other.close()

@pytest.mark.memory_server({"token_expiration_min": 10})
def test_mistaken_place(memory_server):
    pass

@pytest.mark.memory_server(option={"token_expiration_min": 10})
def test_mistaken_name(memory_server):
    pass
"""


def run(directory: Path, *words: str) -> str:
    """Run a test runner in a directory, without the plug-ins of this project's tests, and return what it prints."""
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def test_inert(tmp_path: Path) -> None:
    """Tests that use none of the fixtures do not import the kit, Twisted or Hypothesis, and work in any way."""
    (tmp_path / "test_inert.py").write_text(INERT)
    assert "1 passed" in run(tmp_path, "pytest", "-q", "-p", "no:rerunfailures", "-p", "no:xdist", "-p", "no:cov")
    assert "memory_server(**arguments)" in run(tmp_path, "pytest", "--markers")


def test_fixtures(tmp_path: Path) -> None:
    """Markers configure the server, the closest one first; all share a clock and are closed; mistakes are named."""
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    said = run(tmp_path, "pytest", "-q", "--strict-markers")
    assert "5 passed, 2 errors" in said, said
    assert "takes arguments by name only, not {'token_expiration_min': 10}" in said
    assert "MemoryServer has no argument 'option'" in said
