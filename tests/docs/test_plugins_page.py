# SPDX-License-Identifier: Apache-2.0
"""Tests for ``docs/plugins.md``: the plug-in that it shows, installed in a directory and served by the real command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ECHO, make_server

if TYPE_CHECKING:
    from tests.docs.conftest import ReadBlocks
    from tests.integration.conftest import MakeServer

__all__ = ["make_server"]


@pytest.mark.integration
def test_page(
    read_blocks: ReadBlocks,
    make_server: MakeServer,
    tmp_path: Path,
) -> None:
    """The plug-in answers behind the inference key; what comes with the server does not, as nobody named it."""
    [project] = read_blocks("plugins.md", "toml")
    [source] = read_blocks("plugins.md", "python")
    [(group, points)] = re.findall(r'\[project\.entry-points\."(.+)"\]\n(.*)', project.text, re.S)
    # What pip makes of it.
    (tmp_path / "ready.py").write_text(source.text)
    info = tmp_path / "ready-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ready\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n" + points.replace('"', ""))
    server = make_server({"m": ECHO}, load_models="m").start("--plugins-path", str(tmp_path))
    answer = server.curl("inference", "/model-ready", key="inference")
    assert (answer.status, answer.json()) == (200, {"Status": "Model/s ready"})
    assert server.curl("inference", "/model-ready").status == 400
    assert server.curl("inference", "/model-ready", key="management").status == 400
    assert server.curl("inference", "/execution-parameters", key="inference").status == 404
    assert "Endpoint /model-ready (inference) is served by the plug-in model-ready of ready 1.0" in server.log()
    assert server.stop() == 0

    (tmp_path / "ready.py").write_text("raise OSError('no such device')")
    refused = server.run("--foreground", "--ncs", "--model-store", str(server.store), "--plugins-path", str(tmp_path))
    assert refused.returncode == 1
    assert "the plug-in model-ready of ready 1.0 cannot be imported: OSError: no such device" in refused.stderr
    server.assert_clean()
