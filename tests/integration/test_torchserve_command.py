# SPDX-License-Identifier: Apache-2.0
"""Tests for the command by other names: ``torchserve``, through shims and links, found by its lock alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.conftest import COMMAND, ECHO, LONG

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

WORD = "org.pytorch.serve.ModelServer"

ALREADY = "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """Make a server with one model."""
    return make_server({"echo": ECHO})


@pytest.fixture
def shims(tmp_path: Path) -> Path:
    """Write the shims; return where."""
    directory = tmp_path / "shims with a blank"
    subprocess.run([COMMAND, "shims", directory], capture_output=True, timeout=LONG, check=True)
    return directory


def named(server: Server) -> list[int]:
    """Return the processes that SageMaker's toolkit would take for this server's, as it looks for them."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            # The environment of a server is protected.
            ours = str(server.store) in words or process.environ().get("TMPDIR") == str(server.temp)
            if WORD in words and ours:
                found.append(process.pid)
    return found


def run(server: Server, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command around the server."""
    return subprocess.run(
        words, cwd=server.cwd, env=server.environ, capture_output=True, text=True, timeout=LONG, check=False
    )


def test_start_script(server: Server, shims: Path) -> None:
    """A script for TorchServe runs as it is, also beside modules that are called like Python's own."""
    for name in ("types", "logging", "attrs"):
        (server.cwd / f"{name}.py").write_text("raise SystemExit('imported from the working directory')\n")
    # Workers look there, as TorchServe's do.
    store = server.store.rename(server.store.with_name("model store"))
    script = server.cwd / "start.sh"
    script.write_text(f"""set -e
torchserve --start --ncs --model-store "{store}" > log 2>&1
torchserve --start --ncs --model-store "{store}" || echo "second: $?"
kill -0 "$(cat "$TMPDIR/.model_server.pid")"
python3 -c 'import os; print(int(open(os.environ["TMPDIR"] + "/.model_server.pid").readline()))'
torchserve --stop
""")
    server.environ["PATH"] = os.pathsep.join((str(shims), os.environ["PATH"]))
    done = run(server, "bash", script)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines(keepends=True)
    assert lines[:2] == [ALREADY, "second: 1\n"]
    assert lines[2].strip().isdigit()
    assert lines[3:] == ["TorchServe has stopped.\n"]
    server.assert_clean()


@pytest.mark.parametrize("foreground", [False, True])
def test_word(server: Server, shims: Path, foreground: bool) -> None:
    """The server's process, and no other of its processes, has the word by which SageMaker's toolkit finds it."""
    words = [str(shims / "torchserve"), *server.command("--start", "--models", "echo=echo")[1:]]
    if foreground:
        server.start(command=[*words, "--foreground"])
    else:
        with server.output.open("ab") as output:
            done = subprocess.run(words, cwd=server.cwd, env=server.environ, stdout=output, timeout=LONG, check=False)
        assert done.returncode == 0
    found = named(server)
    assert found == [server.pid] == [int(server.pid_file.read_text())]
    assert run(server, shims / "torchserve", "--stop").stdout == "TorchServe has stopped.\n"
    assert not any(map(server.alive, found))
    server.assert_clean()


def test_no_word(server: Server) -> None:
    """A server that twisted-serve starts is nothing that looks like TorchServe's."""
    assert server.start_in_background() == 0
    assert named(server) == []
    assert server.run("--stop").stdout == "TorchServe has stopped.\n"


@pytest.mark.parametrize("way", ["link", "module", "symlinked interpreter"])
def test_other_names(server: Server, tmp_path: Path, way: str) -> None:
    """Whatever a server was started as, there is one at a time, and any of the commands stops it."""
    link = tmp_path / "torchserve"
    link.symlink_to(COMMAND if way == "link" else sys.executable)
    command = [str(link)]
    if way != "link":
        # Of the same virtual environment: Python looks for it beside the link.
        link.unlink()
        environment = tmp_path / "venv" / "bin"
        environment.mkdir(parents=True)
        link = environment / ("serve-with-this" if way == "symlinked interpreter" else "python")
        link.symlink_to(sys.executable)
        (tmp_path / "venv" / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
        (tmp_path / "venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
        command = [str(link), "-m", "twisted_serve"]
    server.start(command=[*command, "--foreground", *server.command("--models", "echo=echo")[1:]])
    pid = int(server.pid_file.read_text())
    assert pid == server.pid
    second = run(server, *command, "--start", "--ncs", "--model-store", server.store)
    assert (second.returncode, second.stdout) == (1, ALREADY)
    assert int(server.pid_file.read_text()) == pid
    assert run(server, *command, "--stop").stdout == "TorchServe has stopped.\n"
    assert server.front is not None
    assert server.front.wait(LONG) == 0
    server.assert_clean()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that looks like a server and is none."""
    words = ["-c", "import time; time.sleep(600)", "twisted-serve", WORD]
    process = subprocess.Popen([sys.executable, *words], stdin=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def test_stale_pid(server: Server, stranger: subprocess.Popen[bytes]) -> None:
    """The pid of a server that was killed may be another process's by now, which is not stopped."""
    server.start()
    server.stop(signal.SIGKILL)
    assert server.pid_file.exists()
    server.pid_file.write_text(str(stranger.pid))
    done = server.run("--stop")
    assert "process" in done.stderr or done.stdout == "TorchServe is not currently running.\n"
    assert stranger.poll() is None


def test_killed(server: Server) -> None:
    """The file of a killed server keeps nothing from starting, and goes with the next command."""
    server.start("--models", "echo=echo")
    server.stop(signal.SIGKILL)
    server.front = None
    assert server.run("--stop").stdout == "Removing orphan pid file.\nTorchServe is not currently running.\n"
    assert not server.pid_file.exists()


def test_two_at_once(server: Server) -> None:
    """Of servers that start at the same moment one serves, and the others say that it does."""
    server.pid_file.write_text("4194305")
    words = server.command("--foreground")
    started = [
        subprocess.Popen(
            words,
            cwd=server.cwd,
            env=server.environ,
            stdin=subprocess.DEVNULL,
            stdout=(server.temp / f"out-{number}").open("wb"),
            stderr=subprocess.STDOUT,
        )
        for number in range(3)
    ]
    try:
        server.until(lambda: [process.poll() for process in started].count(1) == 2, "two of three to be refused")
        [serving] = [process for process in started if process.poll() is None]
        assert int(server.pid_file.read_text()) == serving.pid
        refused = [(server.temp / f"out-{n}").read_text() for n, p in enumerate(started) if p is not serving]
        assert all(ALREADY in text for text in refused)
        assert server.run("--stop").stdout == "TorchServe has stopped.\n"
        assert serving.wait(LONG) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
