# SPDX-License-Identifier: Apache-2.0
"""Tests for the command ``twisted-serve``: how a server starts, how it ends, and what is left of it."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

ECHO = "def handle(data, context):\n    return data and [bytes(row['body']) for row in data]\n"

SLOW_TO_LOAD = "import time\n\ndef handle(data, context):\n    time.sleep(60)\n"

VERSIONS = "TorchServe Version is 0.12.0\ntwisted_serve Version is "


@pytest.fixture
def server(make_server: MakeServer) -> Server:
    """Make a server with one model."""
    return make_server({"echo": ECHO})


def test_background(server: Server) -> None:
    """``--start`` returns when the server answers; a second one is refused; ``--stop`` ends it and leaves nothing."""
    assert server.start_in_background("--models", "echo=echo") == 0
    server.learn_ports()
    assert server.predict("echo", b"hello").body == b"hello"
    assert "Model server started.\n" in server.log()
    assert stat.S_IMODE(server.key_file.stat().st_mode) == 0o600
    front, workers = server.pid, server.workers()
    assert len(workers) == 1
    assert len(server.work_dirs()) == 1

    second = server.run("--start", "--ncs", "--model-store", str(server.store))
    assert (second.returncode, second.stderr) == (1, "")
    assert second.stdout == "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
    assert server.predict("echo", b"still here").body == b"still here"

    stopped = server.run("--stop")
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "TorchServe has stopped.\n", "")
    assert [server.alive(pid) for pid in (front, *workers)] == [False, False]
    server.assert_clean()
    again = server.run("--stop")
    assert (again.returncode, again.stdout) == (0, "TorchServe is not currently running.\n")


def test_model_that_cannot_load(server: Server) -> None:
    """A start-up model that cannot be loaded, or is not there, is logged, and the others are served."""
    server.add_model("broken", "def handle(data, context)\n    return data\n")
    server.start("--models", "broken=broken", "echo=echo", "nowhere=nowhere")
    assert server.predict("echo", b"hello").body == b"hello"
    assert server.curl("inference", "/livez").status == 200
    assert server.curl("inference", "/readyz").status == 503
    assert "Failed to load model: nowhere" in server.log()
    assert "SyntaxError" in server.log()
    assert server.stop() == 0
    server.assert_clean()


def test_stop_from_elsewhere(server: Server) -> None:
    """``--stop`` in another directory, with ``--foreground``, ends the server silently, its key file included."""
    assert server.start_in_background() == 0
    home, server.cwd = server.cwd, server.store
    stopped = server.run("--stop", "--foreground")
    server.cwd = home
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
    server.assert_clean()


@pytest.mark.parametrize("role", ["inference", "metrics"])
def test_taken_port(server: Server, role: str) -> None:
    """A server that cannot have one of its ports says which one, exits with 1, and leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server.configure(**{f"{role}_address": f"http://127.0.0.1:{port}"})
        assert server.start_in_background("--models", "echo=echo") == 1
    last = server.log().splitlines()[-1]
    assert f"127.0.0.1:{port}" in last
    assert "Address already in use" in last
    assert "Traceback" not in server.log()
    assert "Model server started." not in server.log()
    server.assert_clean()
    assert_no_process(server)


@pytest.mark.parametrize(("where", "foreground"), [("missing/key_file.json", False), ("file/key_file.json", True)])
def test_unwritable_key_file(server: Server, where: str, foreground: bool) -> None:
    """A server that cannot write its key file does not start: nobody would know its keys."""
    (server.cwd / "file").touch()
    server.configure(token_key_file=server.cwd / where)
    if foreground:
        server.start("--models", "echo=echo", wait=False)
        assert server.front is not None
        assert server.front.wait(40) == 1
    else:
        assert server.start_in_background("--models", "echo=echo") == 1
    last = server.log().splitlines()[-1]
    assert "the key file cannot be written" in last
    assert str(server.cwd / where) in last
    assert "Traceback" not in server.log()
    server.assert_clean()
    assert_no_process(server)


def test_version(server: Server) -> None:
    """``--version`` prints both versions, that of the predecessor first."""
    done = server.run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith(VERSIONS)


def test_no_model_store(server: Server) -> None:
    """Without a model store nothing starts; a model store that is not there is named."""
    done = server.run("--start", "--ncs")
    assert (done.returncode, done.stdout) == (1, "Missing mandatory parameter --model-store\n")
    done = server.run("--start", "--ncs", "--model-store", "nowhere")
    assert (done.returncode, done.stdout) == (1, "--model-store directory not found: nowhere\n")
    server.assert_clean()


def test_model_store_of_file(server: Server) -> None:
    """A model store in ``config.properties`` of the working directory is enough."""
    server.configure(model_store=server.store, load_models="all")
    server.start(command=server.command("--foreground")[:2])
    assert server.predict("echo", b"found").body == b"found"


def test_wrong_setting(server: Server) -> None:
    """A setting that cannot be used is named with its value and its file, and nothing is left behind."""
    server.configure(token_expiration_min="soon")
    assert server.start_in_background() == 1
    file = server.cwd / "config.properties"
    reason = f"token_expiration_min must be a number, not 'soon' ({file})"
    assert server.log() == f"Invalid configuration: {reason}\n"
    server.assert_clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal(server: Server, number: signal.Signals) -> None:
    """A server in the foreground ends with 0 when it is told to end; keys, files and workers end with it."""
    server.start("--models", "echo=echo")
    workers = server.workers()
    assert len(workers) == 1
    assert server.stop(number) == 0
    assert "Torchserve stopped." in server.log()
    assert not server.alive(workers[0])
    server.assert_clean()


def test_signal_while_loading(make_server: MakeServer) -> None:
    """A server that is told to end while a model is loading ends soon, and leaves nothing."""
    server = make_server({"slow": SLOW_TO_LOAD})
    server.start("--models", "slow=slow", wait=False)
    server.until(lambda: server.key_file.exists() and len(server.workers()) == 1, "a worker that loads")
    workers = server.workers()
    assert server.stop() == 0
    assert "Model server started." not in server.log()
    assert not server.alive(workers[0])
    server.assert_clean()


def test_stop_while_starting(make_server: MakeServer) -> None:
    """A server that is stopped before it is ready has not been started: ``--start`` says so, with 1."""
    server = make_server({"slow": SLOW_TO_LOAD})
    with server.output.open("ab") as output:
        words = server.command("--start", "--models", "slow=slow")
        starting = subprocess.Popen(words, cwd=server.cwd, env=server.environ, stdout=output, stderr=output)
    server.until(lambda: server.pid_file.exists() and bool(server.workers()), "a worker that loads")
    assert server.run("--stop").stdout == "TorchServe has stopped.\n"
    assert starting.wait(40) == 1
    assert server.log().endswith("\nThe server was stopped before it was ready.\n")
    server.assert_clean()


def test_killed(server: Server) -> None:
    """Workers do not outlive a server that is killed; the next start replaces its key file, and old keys are dead."""
    server.start("--models", "echo=echo")
    old, workers = server.keys(), server.workers()
    server.stop(signal.SIGKILL)
    server.until(lambda: not any(map(server.alive, workers)), "the workers' end", 5)
    assert server.keys() == old

    server.start("--models", "echo=echo")
    assert set(old.values()).isdisjoint(server.keys().values())
    assert server.curl("inference", "/ping", bearer=old["inference"]).status == 400
    assert server.curl("management", "/models", bearer=old["management"]).status == 400
    assert server.curl("management", "/token?type=inference", bearer=old["API"]).status == 400
    assert server.curl("inference", "/ping", key="inference").status == 200
    assert server.stop() == 0
    assert not server.key_file.exists()


def test_nobody_reads(server: Server) -> None:
    """A server goes on when the program that read its output is gone."""
    server.front = subprocess.Popen(
        server.command("--foreground", "--models", "echo=echo"),
        cwd=server.cwd,
        env=server.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.front.stdout is not None
    with server.front.stdout as lines:
        for line in lines:
            server.output.write_bytes(server.output.read_bytes() + line)
            if line == b"Model server started.\n":
                break
    server.learn_ports()
    for body in (b"one", b"two"):
        assert server.predict("echo", body).body == body
    assert server.stop() == 0
    server.assert_clean()


def assert_no_process(server: Server) -> None:
    """See that nothing runs any more around the server."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # The environment of a server is protected.
            if str(server.store) in process.cmdline() or process.environ().get("TMPDIR") == str(server.temp):
                left.append(process.cmdline())
    assert left == []


def test_second_signal(make_server: MakeServer, tmp_path: Path) -> None:
    """A second signal ends a server at once which waits for a slow answer; nothing is left, and nothing is amiss."""
    begun = tmp_path / "begun"
    slow = (
        "import time\ndef handle(data, context):\n    if data is None:\n        return None\n"
        f"    open({str(begun)!r}, 'w').close()\n    time.sleep(30)\n    return data\n"
    )
    server = make_server({"slow": slow}, shutdown_timeout=60).start("--models", "slow=slow")
    workers = server.workers()
    with server.connect() as connection:
        connection.sendall(server.head("GET", "/predictions/slow"))
        server.until(begun.exists, "the handler to begin")
        assert server.front is not None
        server.front.send_signal(signal.SIGINT)
        server.until(lambda: not server.key_file.exists(), "the server to begin to stop")
        began = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 15
    server.until(lambda: not any(map(server.alive, workers)), "the workers to be gone")
    assert "Traceback" not in server.log()
    server.assert_clean()
