# SPDX-License-Identifier: Apache-2.0
"""Tests for the wheel: what is in it, and that an installed one is all that a stranger needs."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]

DROP_IN = "twisted/plugins/twisted_serve_plugin.py"


def run(*words: str | Path, cwd: Path) -> str:
    """Run a program far from the source tree."""
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def source_files() -> list[str]:
    """List what a clone would have, the changes of the moment included."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout")
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the source tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in source_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    built = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, tree, cwd=built)
    (wheel,) = built.glob("*.whl")
    return wheel


def test_contents(wheel: Path) -> None:
    """The wheel has every module of ours, the drop-in for ``twistd``, no part of Twisted, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
        assert "twisted-serve = twisted_serve.cli:main" in commands
        assert "twisted-serve-archiver = twisted_serve.archiver.command:main" in commands
        assert "twisted-serve-workflow-archiver = twisted_serve.archiver.workflow_command:main" in commands
    ours = {name for name in source_files() if name.startswith("twisted_serve/")}
    assert names == ours | {DROP_IN}
    grpc = {"descriptors.binpb", "messages.pyi", "protos/inference.proto", "protos/grpc/reflection/v1/reflection.proto"}
    assert {f"twisted_serve/rpc/{name}" for name in grpc} <= names
    assert not any(name.endswith(("_pb2.py", "_pb2_grpc.py")) for name in names)


def test_source_distribution(tree: Path, tmp_path: Path) -> None:
    """The source distribution has all that the wheel is built from."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, tree, cwd=tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in source_files() if name.startswith("twisted_serve/")} - names == set()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an environment that has its dependencies, not the source tree; nobody can write to it."""
    place = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    python = place / "venv/bin/python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--no-index", wheel, cwd=place,
    )  # fmt: skip
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).strip())
    # A path in a .pth file is searched, but the .pth files in it, such as that of an editable install, are not read.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(dependencies)))
    for path in (packages, *packages.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return python


def test_it_is_the_wheel(installed: Path, tmp_path: Path) -> None:
    """What is imported is what was installed."""
    program = "import twisted_serve.cli, twisted; print(twisted_serve.__file__); print(twisted.__file__)"
    ours, twisteds = run(installed, "-c", program, cwd=tmp_path).split()
    assert Path(ours).is_relative_to(installed.parents[1])
    assert not Path(twisteds).is_relative_to(installed.parents[1])


def test_commands(installed: Path, tmp_path: Path) -> None:
    """The server is a command, a module, and TorchServe's command where that was written."""
    run(installed, "-m", "twisted_serve", "shims", "bin", cwd=tmp_path)
    for command in ([installed.with_name("twisted-serve")], [installed, "-m", "twisted_serve"], ["bin/torchserve"]):
        assert "twisted_serve Version is" in run(*command, "--version", cwd=tmp_path)


def test_twistd(installed: Path, tmp_path: Path) -> None:
    """``twistd`` finds the server outside of the source tree, and the server's options."""
    twistd = ["-c", "from twisted.scripts.twistd import run; run()"]
    assert "twisted-serve" in run(installed, *twistd, "--help", cwd=tmp_path)
    assert "--disable-token-auth" in run(installed, *twistd, "twisted-serve", "--help", cwd=tmp_path)


def test_workers(installed: Path, tmp_path: Path) -> None:
    """The installed package has what a worker needs, too."""
    program = "import twisted_serve.backend.__main__, twisted_serve.handlers.base; print('imported')"
    assert run(installed, "-c", program, cwd=tmp_path) == "imported\n"
