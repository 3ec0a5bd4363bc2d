# SPDX-License-Identifier: Apache-2.0
"""
Install a model's requirements with pip: ``python -m twisted_serve.backend.installation``.

The process starts in an empty directory, so that no file of the model shadows a module of pip.
It leads a process group, so that the whole group can be killed, and is killed with the server.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import site
import sys
import venv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from twisted_serve.backend.process import end_with_parent
from twisted_serve.wire.held_back import FOR_THE_SERVER

_PIP = (
    "install",
    "--upgrade",
    "--no-input",
    "--no-color",
    "--progress-bar=off",
    "--disable-pip-version-check",
    "--no-warn-script-location",
)


def main(arguments: Sequence[str]) -> int:
    """
    Create a virtual environment if requested, and install the requirements.

    :return: The exit code, unless pip exits itself.
    """
    parser = argparse.ArgumentParser(prog="python -m twisted_serve.backend.installation")
    parser.add_argument("--parent", type=int, required=True, help="the process id of the server")
    parser.add_argument("--model-dir", type=Path, required=True, help="what the requirements are relative to")
    parser.add_argument("--venv", type=Path, help="make an environment here and install to it")
    parser.add_argument("--target", type=Path, help="install to this directory, and not to this interpreter's own")
    parser.add_argument("--requirements", type=Path, help="what pip is to install")
    said = parser.parse_args(arguments)
    if os.getpgrp() != os.getpid():
        os.setsid()
    # The server alone handles these signals: pip, and the processes that it starts, ignore them.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_SERVER)
    end_with_parent()
    if os.getppid() != said.parent:
        # The server died before the kernel was asked.
        return 1
    if said.venv is not None:
        python = make_venv(said.venv)
        at = list(arguments).index("--venv")
        # Continue in the environment, which finds pip the same way as all packages of the server.
        rest = [*arguments[:at], *arguments[at + 2 :]]
        os.execv(python, [str(python), "-m", "twisted_serve.backend.installation", *rest])  # noqa: S606
    if said.requirements is None:
        return 0
    supervise()
    return install(said.requirements, said.model_dir, said.target)


def supervise() -> None:
    """
    Continue in a child; the parent kills the process group if the server dies, and exits as the child exits.

    pip builds packages in further processes, which do not get a signal from the kernel when the server dies.
    """
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    end_with_parent(signal.SIGTERM)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_with_parent()
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def make_venv(place: Path) -> Path:
    """
    Create a virtual environment that also sees all packages of this interpreter, after its own.

    :return: The path of the environment's interpreter.
    """
    venv.EnvBuilder(symlinks=True).create(place)
    paths = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    [packages] = place.glob("lib/python*/site-packages")
    # A path alone would not do: ``addsitedir`` also reads its ``.pth`` files, which editable installs consist of.
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in paths)
    (packages / "of_the_server.pth").write_text(lines, encoding="utf-8")
    return place / "bin" / "python"


def install(requirements: Path, model_dir: Path, target: Path | None) -> int:
    """
    Run pip in this process.

    :return: The exit code if pip is not installed; otherwise pip exits the process.
    """
    if find_spec("pip") is None:
        sys.stderr.write(f"There is no pip for {sys.executable}.\n")
        return 1
    # Upgrade only packages that the model names, and dependencies only if required.
    where = ["--upgrade-strategy=only-if-needed"] if target is None else [f"--target={target}"]
    sys.argv = ["pip", *_PIP, *where, f"--requirement={requirements}"]
    os.chdir(model_dir)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
