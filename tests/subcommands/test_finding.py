# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.subcommands.finding`, `keys` and the choice of a server in `session`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from twisted_serve.auth.named.secrets import fresh_secret
from twisted_serve.command.run_file import RunFile, RunningServer, namespace, start_of
from twisted_serve.config.addresses import Address
from twisted_serve.subcommands.finding import Found, find_server, server_at
from twisted_serve.subcommands.keys import given_key, key_in_file, own_keys
from twisted_serve.subcommands.outcomes import Failed, NoServer, NotAuthorized
from twisted_serve.subcommands.output import Output
from twisted_serve.subcommands.session import Choice, Session

URL = "http://127.0.0.1:8080"


def server(pid: int = 7, directory: object = "/", **changes: Any) -> RunningServer:
    """Return a running server."""
    said = {"addresses": {"inference": URL, "management": "http://127.0.0.1:8081"}, **changes}
    return RunningServer(pid=pid, started="boot 1", namespace="here", version="1", directory=str(directory), **said)


def key_file(path: Path, **keys: object) -> str:
    """Write a key file; return its path."""
    path.write_text(json.dumps(keys))
    return str(path)


def test_only_one(tmp_path: Path) -> None:
    """The only server is meant, wherever it was started."""
    assert find_server({}, tmp_path, found=([server()], [])).pid == 7


def test_in_this_directory(tmp_path: Path) -> None:
    """Of several the one that was started here is meant."""
    found: Found = ([server(1), server(2, tmp_path), server(3)], [])
    assert find_server({}, tmp_path, found=found).pid == 2


def test_several(tmp_path: Path) -> None:
    """Otherwise all are listed, with the option that chooses one."""
    for found in ([server(1), server(2)], [server(1, tmp_path), server(2, tmp_path)]):
        with pytest.raises(NoServer) as caught:
            find_server({}, tmp_path, found=(found, []))
        lines = caught.value.message.splitlines()
        assert lines[0] == "2 servers are running: choose one with --pid."
        assert [line.split()[:2] for line in lines[1:]] == [["1", URL], ["2", URL]]


def test_chosen(tmp_path: Path) -> None:
    """The process that was given is meant, or there is none."""
    found: Found = ([server(1), server(2)], [])
    assert find_server({}, tmp_path, 1, found).pid == 1
    with pytest.raises(NoServer, match=r"Process 3 is no running server of yours\."):
        find_server({}, tmp_path, 3, found)


def test_none(tmp_path: Path) -> None:
    """Without one, it is said what to do; and why a directory was not read."""
    with pytest.raises(NoServer) as caught:
        find_server({}, tmp_path, found=([], ["/tmp/d: belongs to another user"]))
    assert caught.value.message == (
        "No server of yours is running (/tmp/d: belongs to another user): start one, or name one with --url or TS_URL, "
        "and TS_KEY."
    )


def test_given_key() -> None:
    """A key may have blanks around it, as from a file; one that cannot be sent is not told again."""
    assert given_key(" abc\n") == "abc"
    assert given_key("") is given_key(None) is given_key(" ") is None
    for wrong in ("a b", "a\r\nX: y", "ä", "a\0", "a" * 10 + "\x1b[2J"):
        with pytest.raises(NotAuthorized) as caught:
            given_key(wrong)
        assert wrong not in caught.value.message


def test_checksum() -> None:
    """A mistyped key of a consumer is recognised before a request, and not told again."""
    secret = fresh_secret(os.urandom)
    assert given_key(secret) == secret
    for wrong in (secret[:-1], secret + "0", secret[:9] + ("a" if secret[9] != "a" else "b") + secret[10:], "tsk_"):
        with pytest.raises(NotAuthorized, match="mistyped or cut off") as caught:
            given_key(wrong)
        assert wrong not in caught.value.message


def test_key_in_file(tmp_path: Path) -> None:
    """The key of the kind that is needed is read; a server without tokens needs none."""
    path = key_file(tmp_path / "k", inference={"key": "i"}, management={"key": "m", "expiration time": "2030"})
    assert key_in_file("management", server(key_file=path)) == "m"
    assert key_in_file("management", server()) is None
    assert [(each["name"], each["expires"]) for each in own_keys(server(key_file=path))] == [
        ("inference", None),
        ("management", "2030"),
    ]
    assert own_keys(server()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"API": 1}', b'{"API": {"key": 1}}', b'{"API": {"key": "a b"}}']
)
def test_no_key_in_file(tmp_path: Path, content: bytes) -> None:
    """A key file without the key is named, with what to do."""
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(Failed, match="set TS_KEY to a key") as caught:
        key_in_file("API", server(key_file=str(tmp_path / "k")))
    assert str(tmp_path / "k") in caught.value.message


def test_given_keys(tmp_path: Path) -> None:
    """A key that the operator gives is read in its own file, and the key file is not needed if all are given."""
    (tmp_path / "given").write_text("from-the-operator\n")
    path, given = key_file(tmp_path / "k", API={"key": "a"}), str(tmp_path / "given")
    some = server(key_file=path, given_keys={"inference": given})
    assert [key_in_file(kind, some) for kind in ("inference", "API")] == ["from-the-operator", "a"]
    assert [(each["name"], each["expires"]) for each in own_keys(some)] == [("inference", None), ("API", None)]
    every = server(key_file=str(tmp_path / "none"), given_keys=dict.fromkeys(("inference", "management", "API"), given))
    assert len(own_keys(every)) == 3
    with pytest.raises(Failed, match="has no management key"):
        key_in_file("management", some)
    (tmp_path / "given").write_bytes(b"two words\xff")
    with pytest.raises(Failed, match="has no inference key"):
        key_in_file("inference", some)


def test_no_key_file(tmp_path: Path) -> None:
    """A key file that is gone is named."""
    with pytest.raises(Failed, match="No such file or directory"):
        key_in_file("API", server(key_file=str(tmp_path / "k")))


class SessionCase:
    """A directory in which run files are, with one of a server that runs as long as the test."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(place))
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        path = key_file(place / "k", inference={"key": "i"}, management={"key": "m"}, API={"key": "a"})
        pid = os.getpid()
        said = {
            "pid": pid,
            "started": start_of(pid) or "",
            "namespace": namespace(),
            "version": "1",
            "directory": "/",
            "addresses": {"inference": URL, "management": "unix:/m", "metrics": "tcp:1"},
            "key_file": path,
        }
        RunFile({}, place).write(RunningServer(**said))  # type: ignore[arg-type]


@pytest.fixture
def _running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SessionCase(tmp_path, monkeypatch)


def session(**choice: Any) -> Session:
    """Return a session."""
    return Session(Choice(**choice), Output())


@pytest.mark.usefixtures("_running")
def test_session() -> None:
    """Addresses and keys are those of the running server."""
    found = session()
    assert found.address("inference") == Address("http", "127.0.0.1", 8080)
    assert found.address("management") == Address("unix", path="/m")
    assert [found.key(kind) for kind in ("inference", "management", "API")] == ["i", "m", "a"]
    assert found.authorization("API") == {"Authorization": "Bearer a"}


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize("role", ["metrics", "nothing"])
def test_no_address(role: str) -> None:
    """A role without an address that can be connected to is named."""
    with pytest.raises(NoServer, match="name an address with --url"):
        session().address(role)


@pytest.mark.usefixtures("_running")
def test_given_key_first() -> None:
    """A key that was given is used for everything."""
    assert {session(key="given").key(kind) for kind in ("inference", "management", "API")} == {"given"}


@pytest.mark.usefixtures("_running")
def test_elsewhere() -> None:
    """The keys of this user's server are sent to its own addresses, and to no other."""
    assert session(url=URL).key("management") == "m"
    for url in ("http://127.0.0.1:8082", "http://example.com:8080", "https://127.0.0.1:8080", "unix:/elsewhere"):
        asked = session(url=url)
        assert asked.server is None
        assert asked.key("management") is None
        assert asked.authorization("management") == {}
    assert session(url="http://example.com", key="given").key("inference") == "given"
    assert server_at("unix:/m", []) is None


@pytest.mark.parametrize(
    "url", ["example.com", "ftp://example.com", "http://", "http://h:99999", "tcp:80", "", "unix:m"]
)
def test_no_url(url: str) -> None:
    """What is no address is refused."""
    with pytest.raises(click.BadParameter):
        session(url=url).address("inference")
