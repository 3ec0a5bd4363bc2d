# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/dev.md``: its handler, served and asked as the page says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.conftest import same_output

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks, RunCommands

pytestmark = pytest.mark.integration


def _asked(line: str, content: str) -> object:
    words = [content if word == '{"input": "hello"}' else word for word in shlex.split(line)]
    done = subprocess.run([*words, "-sS", "--noproxy", "*"], capture_output=True, timeout=30, check=True)
    return json.loads(done.stdout)


def test_loop(read_blocks: ReadBlocks, run_commands: RunCommands, tmp_path: Path) -> None:
    """The handler answers to the line as printed, and a failure is told as the page shows."""
    blocks = read_blocks("dev.md")
    here = run_commands([block for block in blocks if block.language == "sh"])
    [shown] = [block.expected for block in blocks if block.text.startswith("twisted-serve dev")]
    answer, failure = (json.loads(block.text) for block in blocks if block.language == "json")
    command, output = Path(sysconfig.get_path("scripts")) / "twisted-serve", tmp_path / "output"
    with output.open("wb") as out:
        serving = subprocess.Popen(
            [command, "dev", "handler.py", "--port", "0"],
            cwd=here,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + 40
        while (found := re.search(r"^  (curl .*)$", output.read_text(), re.M)) is None:
            assert time.monotonic() < end, output.read_text()
            time.sleep(0.05)
        assert shown is not None
        assert same_output(shown, re.sub(r":\d+/", ":8080/", output.read_text()))
        assert _asked(found[1], '{"input": "hello"}') == answer
        assert _asked(found[1], "{}") == failure
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(40) == 0
