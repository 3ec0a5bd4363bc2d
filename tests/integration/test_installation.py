# SPDX-License-Identifier: Apache-2.0
"""Tests for ``install_py_dep_per_model`` and ``useVenv``: a real pip, and packages that lie in the model itself."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.answer import Answer
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

OFFLINE = "--no-index\n--find-links ./wheels\n"

HANDLER = """
import json, sys
import attrs, multipart, tinygreet

def handle(data, context):
    if data is None:
        return None
    told = {"word": tinygreet.WORD, "multipart": multipart.WHOSE, "prefix": sys.prefix, "attrs": attrs.__name__}
    return [json.dumps(told)]
"""

# Builds for ever, with a child that does so, too; the first lines are for the test.
ENDLESS = """
import os, subprocess, sys
MARK = {mark!r}

def get_requires_for_build_wheel(config_settings=None):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(MARK + ".new", "w") as mark:
        print(os.getpid(), sleeper.pid, file=mark)
        print(dict(os.environ), file=mark)
    os.rename(MARK + ".new", MARK)
    for _ in range(20000):
        print("a line of many " * 5, flush=True)
    if {ends!r}:
        sleeper.kill()
        sys.exit("this will not do")
    sleeper.wait()
    return []

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    raise AssertionError
"""


def write_wheel(directory: Path, name: str, source: str, version: str = "99.0") -> None:
    """Write a wheel with one module."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)


def add_model(server: Server, name: str, requirements: str, handler: str = HANDLER, **config: object) -> Path:
    """Put a model directory with requirements, and wheels for them, into the store."""
    server.add_model(name, handler, **config)
    directory = server.store / name
    path = directory / "MAR-INF/MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["requirementsFile"] = "requirements.txt"
    path.write_text(json.dumps(manifest))
    (directory / "requirements.txt").write_text(requirements)
    write_wheel(directory / "wheels", "tinygreet", "WORD = 'hello'")
    write_wheel(directory / "wheels", "multipart", "WHOSE = 'the model'")
    return directory


def add_endless(server: Server, name: str, ends: bool = False) -> Path:
    """Put a model into the store whose requirement is built for ever, and return the file that says it has begun."""
    directory = add_model(server, name, "--no-index\n./endless\n")
    mark = server.cwd / f"{name}-mark"
    (directory / "endless").mkdir()
    (directory / "endless/backend.py").write_text(ENDLESS.format(mark=str(mark), ends=ends))
    (directory / "endless/pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "endless"\nversion = "1"\n'
    )
    return mark


def register(server: Server, url: str) -> Answer:
    return server.curl("management", f"/models?url={url}&initial_workers=1", "-X", "POST", key="management")


def unregister(server: Server, name: str) -> Answer:
    return server.curl("management", f"/models/{name}", "-X", "DELETE", key="management")


def installed(server: Server) -> list[Path]:
    """List what was installed for models, and is still there."""
    [work_dir] = server.work_dirs()
    return list(work_dir.glob("packages/*"))


def digest(directory: Path) -> str:
    """Tell a directory's content."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in paths)).hexdigest()


@pytest.mark.parametrize("venv", [False, True])
def test_installed(make_server: MakeServer, venv: bool) -> None:
    """A model gets what its requirements name, before what the server has; its directory stays as it was."""
    server = make_server(install_py_dep_per_model="true", enable_model_api="true").start()
    directory = add_model(server, "m", OFFLINE + "tinygreet\nmultipart\n", useVenv=venv)
    before = digest(directory)
    answer = register(server, "m")
    assert answer.status == 200, answer.body
    told = server.predict("m").json()
    assert (told["word"], told["multipart"], told["attrs"]) == ("hello", "the model", "attrs")
    [place] = installed(server)
    assert (told["prefix"] == str(place / "venv")) == venv
    assert "Installed custom pip packages for model m" in server.log()
    assert "pip-m_1.0-stdout MODEL_LOG - Looking in links" in server.log()
    assert digest(directory) == before
    assert unregister(server, "m").status == 200
    assert installed(server) == []
    assert server.stop() == 0
    server.assert_clean()


def test_shared_archive(make_server: MakeServer) -> None:
    """Two models of one archive share what is unpacked, and not what is installed."""
    server = make_server(install_py_dep_per_model="true", enable_model_api="true").start()
    directory = add_model(server, "m", OFFLINE + "tinygreet\nmultipart\n")
    with zipfile.ZipFile(server.store / "m.mar", "w") as archive:
        for path in directory.rglob("*"):
            archive.write(path, path.relative_to(directory))
    for name in ("a", "b"):
        assert register(server, f"m.mar&model_name={name}").status == 200
    [work_dir] = server.work_dirs()
    assert len(list(work_dir.glob("models/*"))) == 1
    assert len(installed(server)) == 2
    assert unregister(server, "a").status == 200
    assert server.predict("b").json()["word"] == "hello"
    assert len(installed(server)) == 1
    assert unregister(server, "b").status == 200
    assert list(work_dir.glob("*/*")) == []


def test_refused(make_server: MakeServer) -> None:
    """What pip cannot install is a failed registration with pip's last lines, each time, and nothing stays of it."""
    server = make_server(install_py_dep_per_model="true", enable_model_api="true").start()
    for name, venv in (("m", False), ("v", True)):
        add_model(server, name, "--no-index\nno-such-thing\n", useVenv=venv)
        for _ in range(2):
            answer = register(server, name)
            told = answer.json()
            assert (answer.status, told["type"]) == (400, "ModelException")
            assert told["message"] == f"Custom pip package installation failed for model {name}"
            assert "No matching distribution found for no-such-thing" in told["reason"]
    assert server.curl("management", "/models", key="management").json()["models"] == []
    assert installed(server) == []
    assert "No matching distribution found for no-such-thing" in server.log()


def test_much_output_and_no_secrets(make_server: MakeServer) -> None:
    """Output of any length holds nobody up; what pip starts sees no key and nothing that is kept from workers."""
    server = make_server(install_py_dep_per_model="true", enable_model_api="true", blacklist_env_vars="MY_SECRET.*")
    server.environ |= {"MY_SECRET_KEY": "hunter2", "PIP_VERBOSE": "1", "HARMLESS": "seen"}
    server.start()
    mark = add_endless(server, "m", ends=True)
    answer = register(server, "m")
    assert answer.status == 400
    assert len(server.log()) > 1_000_000
    seen = mark.read_text()
    assert "seen" in seen
    assert not any(secret in seen for secret in ("hunter2", *server.keys().values()))


def test_too_slow(make_server: MakeServer) -> None:
    """An installation has a time limit; then everything that it has started is ended, and nothing stays."""
    server = make_server(install_py_dep_per_model="true", enable_model_api="true", install_py_dep_timeout=15).start()
    mark = add_endless(server, "m")
    answer = register(server, "m")
    assert (answer.status, answer.json()["reason"]) == (400, "It took more than 15 seconds.")
    for pid in mark.read_text().split("\n")[0].split():
        server.until(lambda pid=pid: not server.alive(int(pid)), "the build to end")  # type: ignore[misc]
    server.until(lambda: installed(server) == [], "the directory to go")


def test_stop(make_server: MakeServer) -> None:
    """A server that is stopped ends what is being installed for a start-up model, and leaves nothing."""
    server = make_server(install_py_dep_per_model="true", load_models="m")
    mark = add_endless(server, "m")
    server.start(wait=False)
    server.until(mark.exists, "the build to begin")
    assert server.stop() == 0
    for pid in mark.read_text().split("\n")[0].split():
        server.until(lambda pid=pid: not server.alive(int(pid)), "the build to end")  # type: ignore[misc]
    server.assert_clean()


def test_off(make_server: MakeServer) -> None:
    """Without the setting nothing is installed, and the log says so."""
    server = make_server(enable_model_api="true").start()
    add_model(server, "m", "--no-index\nno-such-thing\n", handler="def handle(data, context):\n    return ['x']\n")
    assert register(server, "m").status == 200
    assert "nothing is installed for it, because install_py_dep_per_model is false" in server.log()
    assert installed(server) == []
    assert os.listdir(server.store / "m") != []
