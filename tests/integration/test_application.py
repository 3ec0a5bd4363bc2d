# SPDX-License-Identifier: Apache-2.0
"""Tests for an application with two servers: its own tests, which trial runs in an empty directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
CHECKER = HERE.parents[1] / "docs" / "examples" / "htpasswd.py"


def test_trial(tmp_path: Path) -> None:
    """Trial, which fails for what a test leaves in the reactor, passes; nothing is left on disk, either."""
    shutil.copytree(HERE / "shop", tmp_path / "shop", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKER, tmp_path)
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "twisted.trial", "shop.app_tests"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED (successes=1)" in done.stdout
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [*tmp_path.rglob("twisted_serve-*"), *tmp_path.rglob("keys.json")] == []
    log = (tmp_path / "_trial_temp" / "test.log").read_text()
    assert "Unhandled" not in log
    assert "Traceback" not in log
