# SPDX-License-Identifier: Apache-2.0
"""Tests for archives in a real server: those of every form serve; `test_bad_input` has those that are none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from twisted_serve.archiver.config import FORMATS, ModelArchiverConfig
from twisted_serve.archiver.packing import pack
from twisted_serve.testing.strategies.archives import model_entries, tar_archive, zip_archive

if TYPE_CHECKING:
    from tests.integration.answer import Answer
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Reads a file of its archive as handlers do: relative to the working directory.
HANDLER = """
def entry(data, context):
    if data is None:
        return None
    return [open("words/greeting.txt").read() + context.manifest["model"]["modelVersion"]]
"""

ECHO = b"def handle(data, context):\n    return data and ['alive']\n"


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server for all tests of this module."""
    return make_module_server(enable_model_api="true", startup_timeout=30).start()


def register(server: Server, query: str) -> Answer:
    return server.curl("management", f"/models?{query}&initial_workers=1", "-X", "POST", key="management")


@pytest.mark.parametrize("form", FORMATS)
def test_forms(server: Server, tmp_path: Path, form: str) -> None:
    """What the archiver packs is served, in every form, with a function as entry point and a file beside it."""
    (tmp_path / "src/words").mkdir(parents=True)
    (tmp_path / "src/words/greeting.txt").write_text("hello ")
    (tmp_path / "handler.py").write_text(HANDLER)
    name = f"of-{form}"
    config = ModelArchiverConfig(
        name,
        tmp_path / "handler.py:entry",
        "2.5",
        extra_files=[tmp_path / "src"],
        export_path=server.store,
        archive_format=form,
    )
    path = pack(config)
    answer = register(server, f"url={path.name}")
    assert answer.status == 200, answer.body
    assert server.predict(f"{name}/2.5").body == b"hello 2.5"


def test_old_forms(server: Server) -> None:
    """Archives without a manifest, tars without a directory around them, and ``.model`` files are served, too."""
    entries = model_entries({"handler.py": ECHO}, modelName="flat", handler="handler.py")
    (server.store / "flat.tgz").write_bytes(tar_archive(entries, top=None))
    (server.store / "old.model").write_bytes(tar_archive(entries))
    (server.store / "bare.mar").write_bytes(zip_archive(entries[:1]))
    for name, query in (
        ("flat", "url=flat.tgz"),
        ("old", "url=old.model&model_name=old"),
        ("bare", "url=bare.mar&model_name=bare&handler=handler.py"),
    ):
        answer = register(server, query)
        assert answer.status == 200, answer.body
        assert server.predict(name).body == b"alive"
