# SPDX-License-Identifier: Apache-2.0
"""Tests for `tests.flaky`: pytest, run on tests that fail once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import flaky

pytestmark = pytest.mark.integration

TESTS = """
from pathlib import Path
import pytest

def fails_once(name):
    seen = Path(__file__).with_name(name)
    if not seen.exists():
        seen.touch()
        raise AssertionError("the first time")

@pytest.mark.integration
def test_flaky():
    fails_once("flaky")

@pytest.mark.integration
class TestOfClass:
    def test_flaky(self):
        fails_once("method")

@pytest.mark.integration
def test_broken():
    assert not "always"

@pytest.fixture
def world():
    fails_once("world")

@pytest.mark.integration
def test_fixture(world):
    pass

@pytest.mark.integration
def test_sound():
    pass

def test_unit():
    fails_once("unit")
"""


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on the tests above."""
    shutil.copy(flaky.__file__, place / "conftest.py")
    (place / "test_it.py").write_text(TESTS)
    (place / "pytest.ini").write_text("[pytest]\nmarkers = integration\naddopts = --strict-markers\n")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, "test_it.py"]
    return subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_run_again(tmp_path: Path, words: tuple[str, ...]) -> None:
    """An integration test that passes the second time passes, and is named; one in memory has failed."""
    pytest.importorskip("pytest_rerunfailures")
    done = run(tmp_path, *words)
    assert done.returncode == 1
    _, _, listed = done.stdout.partition(" FLAKY ")
    named = {line for line in listed.splitlines() if line.startswith("test_it.py::")}
    assert named == {"test_it.py::test_flaky", "test_it.py::TestOfClass::test_flaky", "test_it.py::test_fixture"}
    assert "FAILED test_it.py::test_unit" in done.stdout
    assert "FAILED test_it.py::test_broken" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 failed, 4 passed, 4 rerun in ")


def test_nothing_to_name(tmp_path: Path) -> None:
    """Without such a test there is no heading; and pytest alone, without its plug-in, runs nothing again."""
    assert "FLAKY" not in run(tmp_path, "-k", "sound").stdout
    done = run(tmp_path, "-p", "no:rerunfailures", "-k", "test_flaky")
    assert done.stdout.splitlines()[-1].startswith("2 failed, 4 deselected in ")
    assert "FLAKY" not in done.stdout
