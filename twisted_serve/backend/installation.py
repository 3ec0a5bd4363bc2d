# SPDX-License-Identifier: Apache-2.0
"""
This module implements the process that installs what a model needs: ``python -m twisted_serve.backend.installation``.

It starts in a directory with nothing in it, so that no file of the model is taken for a
part of pip; it leads a process group, which can be ended as one, and ends with the server,
the whole group.
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
    Make an environment, if one is asked for, and install.

    :return: The exit code, if pip has none for us.
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
    # Signals that do not end the server are none of pip's business, nor of what pip starts.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_THE_SERVER)
    end_with_parent()
    if os.getppid() != said.parent:
        # It died before we asked.
        return 1
    if said.venv is not None:
        python = make_venv(said.venv)
        at = list(arguments).index("--venv")
        # This goes on in the environment, where pip is found by the same way as everything of the server's.
        rest = [*arguments[:at], *arguments[at + 2 :]]
        os.execv(python, [str(python), "-m", "twisted_serve.backend.installation", *rest])  # noqa: S606
    if said.requirements is None:
        return 0
    watch_over_the_rest()
    return install(said.requirements, said.model_dir, said.target)


def watch_over_the_rest() -> None:
    """
    Go on in a child; here, see to it that nothing of the group outlives the server, and end as the child ends.

    pip builds packages in processes of its own, of which the kernel knows no more than whose children they are.
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
    Make an environment that sees all packages of this interpreter, its own first.

    :return: Its interpreter.
    """
    venv.EnvBuilder(symlinks=True).create(place)
    paths = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    [packages] = place.glob("lib/python*/site-packages")
    # Not the paths alone: of those, the ``.pth`` files would not be read, which editable installs consist of.
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in paths)
    (packages / "of_the_server.pth").write_text(lines, encoding="utf-8")
    return place / "bin" / "python"


def install(requirements: Path, model_dir: Path, target: Path | None) -> int:
    """
    Become pip.

    :return: The exit code if there is no pip; otherwise pip exits.
    """
    if find_spec("pip") is None:
        sys.stderr.write(f"There is no pip for {sys.executable}.\n")
        return 1
    # What the new packages leave as it is stays: only what the model asks for is renewed.
    where = ["--upgrade-strategy=only-if-needed"] if target is None else [f"--target={target}"]
    sys.argv = ["pip", *_PIP, *where, f"--requirement={requirements}"]
    os.chdir(model_dir)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
