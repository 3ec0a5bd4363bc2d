# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.subcommands.dev.project`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from twisted_serve.archiver.config import ArchiverError, ModelArchiverConfig
from twisted_serve.archives.manifest import read_manifest
from twisted_serve.subcommands.dev.command import default_name
from twisted_serve.subcommands.dev.project import Project

HANDLE = "def handle(data, context): pass\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def project(handler: str = "handler.py", **said: Any) -> Project:
    return Project(ModelArchiverConfig("m", handler, **said))


def collected(handler: str = "handler.py", **said: Any) -> list[str]:
    return sorted(project(handler, **said).collect(list[str]().append))


def test_modules() -> None:
    """A model consists of its handler and the local modules that are imported, also by each other, and no others."""
    write(
        {
            "src/handler.py": "import one, json\nfrom pack import two\n" + HANDLE,
            "src/one.py": "import three\n",
            "src/three.py": "import one\n",
            "src/pack/__init__.py": "",
            "src/pack/two.py": "from . import four\nfrom .five import x\n",
            "src/pack/four.py": "",
            "src/pack/five.py": "x = 1",
            "src/other.py": "",
        }
    )
    pack = [f"pack/{name}.py" for name in ("__init__", "five", "four", "two")]
    assert collected("src/handler.py") == ["handler.py", "one.py", *pack, "three.py"]


def test_given_files() -> None:
    """What is given belongs to it under its base name; a directory with its content."""
    write(
        {
            "handler.py": HANDLE,
            "d/net.py": "import layers",
            "d/layers.py": "",
            "d/w.pt": "",
            "x/a/b.txt": "",
            "c.yaml": "",
        }
    )
    names = collected(model_file="d/net.py", serialized_file="d/w.pt", extra_files="x", config_file="c.yaml")
    assert names == ["a/b.txt", "c.yaml", "handler.py", "layers.py", "net.py", "w.pt"]


@pytest.mark.parametrize(
    "source",
    [
        HANDLE,
        "async def handle(data, context): pass",
        "class Mine:\n    def initialize(self, context): pass\n    def handle(self, data, context): pass",
        "from x import BaseHandler\nclass Mine(BaseHandler): pass",
        "from x import *",
        "try:\n    from fast import handle\nexcept ImportError:\n    handle = None",
    ],
)
def test_handlers(source: str) -> None:
    """A function, a class, a subclass, and names that come from elsewhere are handlers."""
    write({"handler.py": source})
    assert collected() == ["handler.py"]


@pytest.mark.parametrize(
    ("source", "handler", "text"),
    [
        ("", "handler.py", "The handler handler.py has no function handle(data, context) and no class."),
        ("def handel(data, context): pass", "handler.py", "no class; did you mean handler.py:handel?"),
        ("def run(): pass\ndef handler(): pass", "handler.py", "no class; did you mean handler.py:handler?"),
        ("def one(): pass\ndef two(): pass", "handler.py", "and no class."),
        ("def predict(data, context): pass", "handler.py:predcit", "has no 'predcit'; did you mean predict?"),
        ("def (", "handler.py", "is not valid Python: invalid syntax (line 1)."),
        (HANDLE, "handlr.py", "File does not exist: handlr.py; did you mean handler.py?"),
        (HANDLE, "image_clasifier", "did you mean the built-in image_classifier?"),
        (HANDLE, "../handler.py/x", "File does not exist: ../handler.py/x.py"),
    ],
)
def test_refused(source: str, handler: str, text: str) -> None:
    """What can be no handler is refused at once, with what may be meant."""
    write({"handler.py": source})
    with pytest.raises(ArchiverError) as caught:
        collected(handler)
    assert str(caught.value).endswith(text)


def test_missing_files() -> None:
    """A file that is given and does not exist is named."""
    write({"handler.py": HANDLE})
    for role in ("model_file", "serialized_file", "config_file", "extra_files"):
        with pytest.raises(ArchiverError, match=r"gone\.x"):
            collected(**{role: "gone.x"})


def test_built_in() -> None:
    """A built-in handler has no file."""
    write({"net.py": "class Net: pass"})
    assert collected("image_classifier", model_file="net.py") == ["net.py"]


def test_laid_out(tmp_path: Path) -> None:
    """The directory is an archive's: code is a copy, which later edits do not reach, other files are links."""
    write({"handler.py": "import one\n" + HANDLE, "one.py": "x = 1", "w.pt": "weights"})
    mine = project("handler.py:handle", serialized_file="w.pt")
    directory = tmp_path / "out" / "7"
    mine.lay_out(mine.collect(list[str]().append), directory, "7")
    manifest = read_manifest(directory, links=True)
    assert (manifest.model_name, manifest.model_version, manifest.handler) == ("m", "7", "handler.py:handle")
    assert manifest.serialized_file == "w.pt"
    write({"one.py": "x = 2"})
    assert (directory / "one.py").read_text() == "x = 1"
    assert os.readlink(directory / "w.pt") == str(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("handler", "model_file", "name"),
    [
        ("handler.py", None, "handler"),
        ("src/my handler.py:run", None, "my_handler"),
        ("src/handler", None, "handler"),
        ("image_classifier", None, "image_classifier"),
        ("image_classifier", "nets/resnet.py", "resnet"),
        ("handler.py", "nets/resnet.py", "handler"),
        ("_.py", None, "model"),
    ],
)
def test_default_name(handler: str, model_file: str | None, name: str) -> None:
    """A model has its handler's name, or its own if the handler is built in."""
    assert default_name(handler, model_file) == name
