# SPDX-License-Identifier: Apache-2.0
"""Tests for archives in a real server: those of every form serve, those that are none are refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from twisted_serve.archiver.config import FORMATS, ModelArchiverConfig
from twisted_serve.archiver.packing import pack
from twisted_serve.testing.strategies.archives import ArchiveEntry, model_entries, tar_archive, zip_archive

if TYPE_CHECKING:
    from tests.integration.conftest import Answer, MakeServer, Server

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


def bad_archives() -> Iterator[tuple[str, bytes, int, str]]:
    """Yield archives that cannot be served: a name, the bytes, the status, and what the answer says."""
    good = zip_archive(model_entries({"handler.py": ECHO}, modelName="x", handler="handler.py"))
    yield "junk.mar", b"junk", 400, "junk.mar is not a valid zip archive"
    yield "empty.mar", b"", 400, "empty.mar is not a valid zip archive"
    yield "half.mar", good[: len(good) // 2], 400, "half.mar is not a valid zip archive"
    yield "junk.tar.gz", b"junk", 400, "junk.tar.gz is not a valid tar.gz archive"
    yield "zip.tar.gz", good, 400, "zip.tar.gz is not a valid tar.gz archive"
    yield "climbs.mar", zip_archive([ArchiveEntry("../evil.py", ECHO)]), 400, "unsafe name '../evil.py'"
    manifest = [ArchiveEntry("MAR-INF/MANIFEST.json", b"{"), ArchiveEntry("handler.py", ECHO)]
    yield "json.mar", zip_archive(manifest), 400, "Failed to parse signature.json."
    manifest[0] = ArchiveEntry("MAR-INF/MANIFEST.json", b"{}")
    yield "model.mar", zip_archive(manifest), 400, "Missing Model entry in manifest file."
    manifest[0] = ArchiveEntry("MAR-INF/MANIFEST.json", json.dumps({"runtime": "java", "model": {}}).encode())
    yield "runtime.mar", zip_archive(manifest), 400, "Runtime is not defined or invalid."
    yield "name.mar", zip_archive(model_entries({"h.py": ECHO}, handler="h.py")), 400, "Model name is not defined."
    yield "handler.mar", zip_archive(model_entries({"h.py": ECHO}, modelName="x")), 400, "names no handler"
    for name, files, model, status, text in (
        (
            "config",
            {"h.py": ECHO, "c": b"batchSize: x"},
            {"configFile": "c"},
            400,
            "batchSize is 'x', expected an integer",
        ),
        ("yaml", {"h.py": ECHO, "c": b"a: ["}, {"configFile": "c"}, 400, "Failed to parse model config file c"),
        ("gone", {"h.py": ECHO}, {"configFile": "c"}, 400, "model config file c: No such file"),
        ("shadow", {"h.py": ECHO}, {"requirementsFile": "/etc/shadow"}, 400, "not inside the model directory"),
        ("missing", {}, {}, 500, "the archive has no module h, nor is it a built-in handler"),
        ("syntax", {"h.py": b"def ("}, {}, 500, "SyntaxError"),
        ("import", {"h.py": b"import no_such_thing"}, {}, 500, "No module named 'no_such_thing'"),
        ("raises", {"h.py": b"def handle(d, c): raise KeyError('my key')"}, {}, 500, "my key"),
        ("class", {"h.py": b"class A: pass\nclass B: pass"}, {}, 500, "Expected only one class"),
        ("function", {"h.py": ECHO}, {"handler": "h.py:nothing"}, 500, "a function entry point"),
    ):
        entries = model_entries(files, **{"modelName": "x", "handler": "h.py", **model})
        yield f"{name}.mar", zip_archive(entries), status, text


def test_bad_archives(server: Server) -> None:
    """What cannot be served is refused with the reason, nothing of it stays, and what is served goes on."""
    if server.curl("management", "/models/alive", key="management").status == 404:
        server.add_model("alive", ECHO.decode())
        assert register(server, "url=alive").status == 200
    [work_dir] = server.work_dirs()
    before = (sorted(work_dir.glob("*/*")), len(server.workers()))
    for name, data, status, text in bad_archives():
        (server.store / name).write_bytes(data)
        answer = register(server, f"url={name}")
        assert answer.status == status, (name, answer.body)
        told = answer.json()
        assert text in told["message"] + told.get("reason", ""), (name, told)
        assert server.predict("alive").body == b"alive", name
    listed = server.curl("management", "/models", key="management").json()["models"]
    assert "x" not in {each["modelName"] for each in listed}
    assert sorted(work_dir.glob("*/*")) == before[0]
    server.until(lambda: len(server.workers()) == before[1], "the failed workers to end")
