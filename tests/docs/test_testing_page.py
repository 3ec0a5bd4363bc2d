# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/testing.md``: its tests pass, and are tests."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.docs.conftest import ReadBlocks


@pytest.mark.integration
def test_examples(read_blocks: ReadBlocks, tmp_path: Path) -> None:
    """All examples of the page, in one file, are collected and pass, as they would with a reader."""
    blocks = read_blocks("testing.md", "python")
    page = tmp_path / "test_page.py"
    page.write_text("\n\n".join(block.text for block in blocks))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(page)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    expected = len(re.findall(r"^ *def test_|^\w+ = \w+\.TestCase$", page.read_text(), re.M))
    assert f"{expected} passed" in run.stdout


@pytest.mark.integration
@pytest.mark.parametrize("runner", ["twisted.trial", "unittest"])
def test_runners(read_blocks: ReadBlocks, tmp_path: Path, runner: str) -> None:
    """The example with a test case and a state machine passes under trial and unittest."""
    [block] = [block for block in read_blocks("testing.md", "python") if "SynchronousTestCase" in block.text]
    (tmp_path / "test_page.py").write_text(block.text)
    run = subprocess.run(
        [sys.executable, "-m", runner, "test_page"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Ran 2 tests in" in run.stdout + run.stderr


def test_ten_lines(read_blocks: ReadBlocks) -> None:
    """A property of expiry and rotation takes ten lines."""
    property_ = read_blocks("testing.md", "python")[0].text.partition("@given")[2]
    assert len(property_.strip().splitlines()) <= 10
