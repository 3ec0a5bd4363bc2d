# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.command.run_file`, `private_directory` and `describing`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve

from twisted_serve.command.describing import Listening, describe_running, write_run_file
from twisted_serve.command.private_directory import opened, places
from twisted_serve.command.run_file import RunFile, RunningServer, namespace, running_servers, start_of
from twisted_serve.config.addresses import Address
from twisted_serve.config.options import ServerOptions
from twisted_serve.listening.roles import Role

UID = os.geteuid()
NAME = f".twisted_serve-{UID}"


class Server:
    """A server that listens."""

    addresses = {Role.INFERENCE: Address("http", "127.0.0.1", 8080), Role.METRICS: Address("unix", path="/s/m")}
    grpc_addresses = {Role.INFERENCE: Address("https", "::1", 7070)}


def described(**changes: Any) -> RunningServer:
    """Return this process as a server, with some changes."""
    return evolve(describe_running(cast(Listening, Server()), ServerOptions(log_files=False)), **changes)


def found(place: Path) -> tuple[list[RunningServer], list[str]]:
    """Return the servers below a temporary directory."""
    return running_servers({}, place)


def test_written_and_removed(tmp_path: Path) -> None:
    """It says where the server is, to its owner only, and goes with it."""
    run_file = RunFile({}, tmp_path)
    run_file.write(described())
    path = tmp_path / NAME / f"{os.getpid()}.json"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    [server], problems = found(tmp_path)
    assert problems == []
    assert server.pid == os.getpid()
    assert server.addresses == {"inference": "http://127.0.0.1:8080", "metrics": "unix:/s/m"}
    assert server.grpc_addresses == {"inference": "https://[::1]:7070"}
    assert server.directory == os.getcwd()
    assert server.key_file == str(Path.cwd() / "key_file.json")
    run_file.remove()
    run_file.remove()
    assert os.listdir(path.parent) == []


def test_no_secret(tmp_path: Path) -> None:
    """No setting with a secret is in it."""
    options = ServerOptions(keystore_pass="changeit-no-more", log_files=False)
    RunFile({}, tmp_path).write(describe_running(cast(Listening, Server()), options))
    assert "changeit-no-more" not in (tmp_path / NAME / f"{os.getpid()}.json").read_text()


def test_given_keys() -> None:
    """The files of given keys are named."""
    options = ServerOptions(token_inference_key_file="given", log_files=False)
    assert describe_running(cast(Listening, Server()), options).given_keys == {"inference": str(Path.cwd() / "given")}


def test_without_tokens_and_files() -> None:
    """What a server does not have is not in it; twistd has the log."""
    options = ServerOptions(disable_token_authorization=True)
    server = describe_running(cast(Listening, Server()), options)
    assert (server.key_file, server.certificate, server.hosted) == (None, None, False)
    assert server.log_directory == str(Path.cwd() / "logs")
    hosted = describe_running(cast(Listening, Server()), options, hosted=True)
    assert (hosted.log_directory, hosted.log_file, hosted.hosted) == (None, None, True)


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"started": "another boot 1"}])
def test_ended(tmp_path: Path, change: dict[str, Any]) -> None:
    """A process that has ended, also one whose pid is used again, is ignored, and its file is removed."""
    RunFile({}, tmp_path).write(described(**change))
    assert found(tmp_path) == ([], [])
    assert os.listdir(tmp_path / NAME) == []


def test_other_container(tmp_path: Path) -> None:
    """A process of another container is ignored, and its file stays."""
    RunFile({}, tmp_path).write(described(namespace="pid:[1]", started=""))
    assert found(tmp_path) == ([], [])
    assert len(os.listdir(tmp_path / NAME)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 60_000,
        json.dumps({"format": 2, "pid": 1}).encode(),
        b'{"format": 1, "pid": PID}',
        b'{"format": 1, "pid": PID, "addresses": {"inference": 1}}',
    ],
)
def test_no_run_file(tmp_path: Path, content: bytes) -> None:
    """Files that say something else are ignored, and stay."""
    RunFile({}, tmp_path).write(described())
    path = tmp_path / NAME / f"{os.getpid()}.json"
    # The parameters are the same in each process that runs tests.
    path.write_bytes(content.replace(b"PID", b"%d" % os.getpid()))
    assert found(tmp_path) == ([], [])
    assert path.exists()


def test_newer(tmp_path: Path) -> None:
    """What a newer server says more is ignored."""
    RunFile({}, tmp_path).write(described())
    path = tmp_path / NAME / f"{os.getpid()}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "more": 1}))
    assert [server.pid for server in found(tmp_path)[0]] == [os.getpid()]


def test_links_in_it(tmp_path: Path) -> None:
    """A link, a pipe and a file with the name of another process are no run files, and nothing waits for them."""
    RunFile({}, tmp_path).write(described())
    directory = tmp_path / NAME
    path = directory / f"{os.getpid()}.json"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    (directory / "1.json").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    os.mkfifo(directory / "2.json")
    assert found(tmp_path) == ([], [])


def test_link(tmp_path: Path) -> None:
    """A link in place of the directory is refused, with the reason, by the server and its users."""
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / NAME).symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="is a link or no directory"):
        RunFile({}, tmp_path).write(described())
    assert os.listdir(tmp_path / "mine") == []
    assert found(tmp_path) == ([], [f"{tmp_path / NAME}: is a link or no directory, and so not trusted"])


def test_writable_by_others(tmp_path: Path) -> None:
    """A directory that others can write to is refused."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME).chmod(0o770)
    with pytest.raises(PermissionError, match="can be written by others"):
        RunFile({}, tmp_path).write(described())
    assert "can be written by others" in found(tmp_path)[1][0]


def test_foreign_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's directory is refused: that user could have named any address."""
    (tmp_path / f".twisted_serve-{UID + 1}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: UID + 1)
    with pytest.raises(PermissionError, match="belongs to another user"):
        RunFile({}, tmp_path).write(described())
    assert "belongs to another user" in found(tmp_path)[1][0]


def test_foreign_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's file in it is ignored."""
    RunFile({}, tmp_path).write(described())
    with opened(tmp_path / NAME) as directory:
        monkeypatch.setattr("twisted_serve.command.run_file.os.geteuid", lambda: UID)
        assert [server.pid for server in found(tmp_path)[0]] == [os.getpid()]
        real = os.fstat

        def foreign(descriptor: int) -> os.stat_result:
            status = real(descriptor)
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                return status
            return os.stat_result((*status[:4], UID + 1, *status[5:]))

        monkeypatch.setattr(os, "fstat", foreign)
        assert found(tmp_path) == ([], [])
        assert len(os.listdir(directory)) == 1


def test_runtime_directory(tmp_path: Path) -> None:
    """The user's runtime directory is preferred if it is this user's; both places are read."""
    runtime, temporary = tmp_path / "run", tmp_path / "tmp"
    runtime.mkdir()
    temporary.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(runtime)}
    assert places(environ, temporary) == [runtime / "twisted_serve", temporary / NAME]
    assert places({"XDG_RUNTIME_DIR": str(tmp_path / "none")}, temporary) == [temporary / NAME]
    assert places({"XDG_RUNTIME_DIR": "run"}, temporary) == [temporary / NAME]
    RunFile({}, temporary).write(described())
    assert len(running_servers(environ, temporary)[0]) == 1
    RunFile(environ, temporary).write(described())
    assert len(running_servers(environ, temporary)[0]) == 1
    assert os.listdir(runtime / "twisted_serve") == [f"{os.getpid()}.json"]


def test_start(tmp_path: Path) -> None:
    """A process is known by its boot and start; the name of its program may be anything, and a zombie has ended."""
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot\n")
    (tmp_path / "7").mkdir()
    fields = [str(number) for number in range(4, 53)]
    (tmp_path / "7/stat").write_text(f"7 (a) (b) S) S {' '.join(fields)}\n")
    assert start_of(7, tmp_path) == "boot 22"
    (tmp_path / "7/stat").write_text(f"7 (a) Z {' '.join(fields)}\n")
    assert start_of(7, tmp_path) is None
    assert start_of(8, tmp_path) is None
    assert namespace(tmp_path) == ""
    mine = start_of(os.getpid())
    assert mine is not None
    assert mine == start_of(os.getpid())


def test_not_writable(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that cannot write the file runs nevertheless."""
    write_run_file(RunFile({}, tmp_path / "none"), cast(Listening, Server()), ServerOptions(log_files=False))


def test_forked(tmp_path: Path) -> None:
    """A process that was forked from the server leaves the file alone."""
    program = (
        "import os, sys; from pathlib import Path; from tests.command.test_run_file import RunFile, described\n"
        "run_file = RunFile({}, Path(sys.argv[1])); run_file.write(described())\n"
        "pid = os.fork()\n"
        "if not pid: run_file.remove(); os._exit(0)\n"
        "os.waitpid(pid, 0); print(len(os.listdir(Path(sys.argv[1]) / f'.twisted_serve-{os.geteuid()}')))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.stdout, ended.returncode) == ("1\n", 0), ended.stderr
