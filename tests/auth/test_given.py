# SPDX-License-Identifier: Apache-2.0
"""Tests for keys that an operator gives, in files and variables."""

from __future__ import annotations

import json
import os
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, cast
from unittest.mock import patch

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

from twisted_serve.assembly.dependencies import taken_secrets, visible_environment
from twisted_serve.auth.given import LONGEST, OPTIONS, SHORTEST, VARIABLES, Source, read_given, sources_of, usable
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.options import ServerOptions
from twisted_serve.interfaces import IServeReactor
from twisted_serve.testing.server import MemoryServer

FIRST = "f3a9c27be6d0415883bb0e1d9c64a7f2"
SECOND = "9d41e8b07c35fa6248d1b7703e92cc5a"
THIRD = "q+Zr8/3LmX~p0.Vw-Tk7_YhB2nQ="

REFUSED = {
    "": "empty",
    "\n": "empty",
    FIRST[: SHORTEST - 1]: "21 characters, not 22",
    "aabbccddeeffgg" * 3: "7 different characters",
    "0" * 64: "1 different characters",
    "changeme-changeme-changeme": "repeats itself",
    "s3cretKey1s3cretKey1s3c": "repeats itself",
    "abcdefghijklmnopqrstuvwxyz": "neighbours",
    "zyxwvutsrqponmlkjihgfedcba9876543210": "neighbours",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789": "neighbours",
    "tsk_" + FIRST: "token_store",
    FIRST + "\n\n": "one newline",
    "\n" + FIRST: "one newline",
    " " + FIRST: "only A-Z",
    FIRST + " ": "only A-Z",
    FIRST[:16] + "\n" + FIRST[16:]: "only A-Z",
    FIRST + "\0": "only A-Z",
    FIRST + "\u00e9": "only A-Z",
    "Bearer " + FIRST: "only A-Z",
    "=" + FIRST: "only A-Z",
    "\ufeff" + FIRST: "only A-Z",
    "x" * (LONGEST + 1): "longer than 512",
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.items())
def test_refused(content: str, reason: str) -> None:
    """A secret that is guessable, or that no request could carry, is refused with the reason, which quotes nothing."""
    with pytest.raises(ValueError, match=reason) as refused:
        usable(content.encode())
    word = content.strip()
    assert not word or word not in str(refused.value)


@pytest.mark.parametrize("content", [FIRST, FIRST + "\n", FIRST + "\r\n", THIRD])
def test_accepted(content: str) -> None:
    """One word is a key, with or without one newline."""
    assert usable(content.encode()) == content.strip()


@given(st.integers(0, 2**64), st.sampled_from([bytes.hex, urlsafe_b64encode]), st.integers(16, 64))
def test_random_ones_are_accepted(seed: int, write: Callable[[bytes], str | bytes], size: int) -> None:
    """No random secret of 128 bits or more is refused, in the usual forms."""
    made = write(Random(seed).randbytes(size))
    made = made if isinstance(made, bytes) else made.encode()
    assert usable(made).encode() == made


@given(st.binary(max_size=600))
def test_any_bytes(content: bytes) -> None:
    """Any bytes are a key that a request can carry, or are refused."""
    try:
        secret = usable(content)
    except ValueError:
        return
    assert SHORTEST <= len(secret) <= LONGEST
    assert secret.encode() in content


class TestSources:
    """Where keys come from."""

    def test_twice(self) -> None:
        """A kind of key that is given twice is refused: which of the two counts could not be told."""
        kind = TokenKind.INFERENCE
        with pytest.raises(ValueError, match="token_inference_key_file and by the variable TS_TOKEN_INFERENCE_KEY"):
            sources_of({kind: Path("x")}, {VARIABLES[kind]: FIRST})

    def test_same(self) -> None:
        """Two kinds of key with one secret would open each other's paths."""
        sources = sources_of({}, {VARIABLES[TokenKind.API]: FIRST, VARIABLES[TokenKind.MANAGEMENT]: FIRST})
        with pytest.raises(ValueError, match="TS_TOKEN_API_KEY and TS_TOKEN_MANAGEMENT_KEY are the same key"):
            read_given(sources)

    def test_nothing_is_shown(self) -> None:
        """No representation holds a secret."""
        sources = sources_of({}, {VARIABLES[TokenKind.API]: FIRST})
        assert FIRST not in repr(sources)
        assert FIRST not in repr(read_given(sources))

    def test_undecodable_variable(self) -> None:
        """A variable that is no text is refused like any other."""
        with pytest.raises(ValueError, match="TS_TOKEN_API_KEY is no key: only"):
            Source(TokenKind.API, VARIABLES[TokenKind.API], variable="\udcff" * 30).read()


def _missing(path: Path) -> None:
    path.unlink()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _large(path: Path) -> None:
    path.write_bytes(b"x" * (1 << 20))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _weak(path: Path) -> None:
    path.write_bytes(b"password")


SPOILED = {
    _missing: "No such file",
    _directory: "Not a regular file",
    _pipe: "Not a regular file",
    _loop: "Too many levels",
    _large: "Larger than 513 bytes",
    _empty: "it is empty",
    _weak: "8 characters",
}


class TestServed:
    """A server with given keys."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "inference.key"
        path.write_text(FIRST + "\n")
        return path

    @pytest.fixture
    def server(self, path: Path) -> Iterator[MemoryServer]:
        options = {"token_inference_key_file": path, "token_overlap_sec": 60, "token_auto_rotate": True}
        with MemoryServer(options) as server:
            yield server

    def test_lives(self, server: MemoryServer) -> None:
        """The key opens its own paths for ever, is in no file, and restarts do not change it."""
        assert server.opens(FIRST)
        assert not server.opens(FIRST, "/models")
        for _ in range(3):
            server.advance(3 * 3600)
        assert server.opens(FIRST)
        server.restart()
        assert server.opens(FIRST)
        assert list(json.loads(server.key_file.read_bytes())) == ["management", "API"]
        assert FIRST not in server.key_file.read_text()
        metrics = server.request("GET", "/metrics").body.decode()
        assert re.search(r'^ts_token_seconds_left\{kind="inference",?\} \+Inf$', metrics, re.M)

    def test_not_by_request(self, server: MemoryServer) -> None:
        """``/token`` says where the key is replaced, and replaces the others."""
        answer = server.request("POST", "/token?type=inference", server.key(TokenKind.API))
        assert answer.status == 409
        assert answer.json["message"] == "The inference key is given by token_inference_key_file: replace it there."
        assert server.opens(FIRST)
        server.rotate(TokenKind.MANAGEMENT)

    @pytest.mark.parametrize(("spoil", "reason"), SPOILED.items())
    def test_refused_at_the_start(self, path: Path, spoil: Callable[[Path], None], reason: str) -> None:
        """A file without a key fails the start, with option, path and reason; nothing is left behind."""
        spoil(path)
        with pytest.raises(ValueError, match=f"^token_inference_key_file {path} is no key: .*{reason}"):
            MemoryServer({"token_inference_key_file": path})

    @pytest.mark.parametrize(("spoil", "reason"), SPOILED.items())
    def test_spoiled_later(self, server: MemoryServer, path: Path, spoil: Callable[[Path], None], reason: str) -> None:
        """The key stays when its file is spoiled, which is logged once; a good file counts again."""
        spoil(path)
        with capturedLogs() as events:
            server.advance(1)
            server.advance(1)
        lines = [str(formatEvent(event)) for event in events if "given keys" in str(event.get("log_format"))]
        assert len(lines) == 1
        assert reason in lines[0]
        assert server.opens(FIRST)
        good = path.with_name("good")
        good.write_text(SECOND)
        if path.is_dir():
            path.rmdir()
        good.replace(path)
        server.advance(1)
        assert server.opens(SECOND)

    def test_replaced(self, server: MemoryServer, path: Path) -> None:
        """A changed file counts within a second, and the old key is good for the overlap; the audit tells both."""
        with capturedLogs() as events:
            path.write_text(SECOND)
            server.advance(1)
        lines = [str(formatEvent(event)) for event in events]
        [line] = [line for line in lines if "was replaced by" in line]
        assert "replaced by token_inference_key_file: key" in line
        assert "does not expire; key" in line
        assert not any(secret in text for secret in (FIRST, SECOND) for text in lines)
        assert server.opens(FIRST)
        assert server.opens(SECOND)
        server.advance(59.9)
        assert server.opens(FIRST)
        server.advance(0.2)
        assert not server.opens(FIRST)
        assert server.opens(SECOND)

    def test_taken_back(self, server: MemoryServer, path: Path) -> None:
        """A key that is given again within the overlap is no longer bound to end."""
        for secret in (SECOND, FIRST, SECOND, FIRST):
            path.write_text(secret)
            os.utime(path, ns=(0, secrets.randbits(40)))
            server.advance(1)
        server.advance(3600)
        assert server.opens(FIRST)
        assert not server.opens(SECOND)

    def test_volume_of_kubernetes(self, path: Path, tmp_path: Path) -> None:
        """A mounted secret changes by the exchange of a link to its directory, all keys together."""
        kinds = {TokenKind.MANAGEMENT: "management", TokenKind.INFERENCE: "inference", TokenKind.API: "api"}
        for version, order in (("..1", (FIRST, SECOND, THIRD)), ("..2", (SECOND, THIRD, FIRST))):
            (tmp_path / version).mkdir()
            for name, secret in zip(kinds.values(), order, strict=True):
                (tmp_path / version / name).write_text(secret)
        (tmp_path / "..data").symlink_to("..1")
        for name in kinds.values():
            (tmp_path / name).symlink_to(f"..data/{name}")
        with MemoryServer({OPTIONS[kind]: tmp_path / name for kind, name in kinds.items()}) as server:
            assert server.opens(SECOND)
            assert not server.key_file.exists()
            (tmp_path / "..new").symlink_to("..2")
            (tmp_path / "..new").replace(tmp_path / "..data")
            server.advance(1)
            assert [server.key(kind) for kind in kinds] == [SECOND, THIRD, FIRST]
            assert server.opens(THIRD)
            assert not server.opens(SECOND)
            server.server.reload()
            assert not server.key_file.exists()

    def test_sighup(self, path: Path) -> None:
        """SIGHUP reads the file again, also where no change can be seen."""
        with MemoryServer({"token_inference_key_file": path}) as server:
            status = path.stat()
            path.write_text(SECOND + "\n")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            server.advance(5)
            assert server.opens(FIRST)
            server.server.reload()
            assert server.opens(SECOND)
            assert not server.opens(FIRST)

    def test_key_of_another_kind(self, server: MemoryServer, path: Path) -> None:
        """A file that gets the secret of a key that the server has made is refused."""
        path.write_text(server.key(TokenKind.API))
        with capturedLogs() as events:
            server.advance(1)
        assert any("is the same as another of the three keys" in str(formatEvent(event)) for event in events)
        assert server.opens(FIRST)
        assert server.request("POST", "/token?type=management", server.key(TokenKind.API)).status == 200

    def test_hanging_file_system(self, path: Path) -> None:
        """One look at a time: a file system that hangs holds up nothing, and costs one thread."""
        from twisted.internet.defer import Deferred, maybeDeferred

        hung: list[Deferred[Any]] = []

        def defer(work: Callable[..., Any], /, *args: object) -> Deferred[Any]:
            if work.__name__ == "_read_changed":
                hung.append(Deferred())
                return hung[-1]
            return maybeDeferred(work, *args)

        with MemoryServer({"token_inference_key_file": path}, dependencies={"defer_to_thread": defer}) as server:
            for _ in range(5):
                server.advance(1)
                server.server.reload()
            assert len(hung) == 1
            assert server.opens(FIRST)

    def test_replicas(self, path: Path) -> None:
        """Two servers with one secret accept the same key, before and after its change."""
        options = {"token_inference_key_file": path}
        with MemoryServer(options, seed=1) as one, MemoryServer(options, seed=2) as other:
            assert one.opens(FIRST)
            assert other.opens(FIRST)
            path.write_text(SECOND)
            for each in (one, other):
                each.advance(1)
                assert each.opens(SECOND)
                assert not each.opens(FIRST)

    def test_kept_and_given(self, path: Path) -> None:
        """A key that is given takes the place of a kept one; a kept one with its secret is made anew."""
        with MemoryServer({"token_on_restart": "keep"}) as server:
            before = server.keys
            path.write_text(before.management.secret)
            server.server.stopService()
            server.options = evolve(server.options, token_inference_key_file=path)
            server._start()
            assert server.key(TokenKind.INFERENCE) == before.management.secret
            assert server.keys.api == before.api
            assert server.key(TokenKind.MANAGEMENT) != before.management.secret


class TestVariables:
    """Keys in environment variables."""

    ENVIRON = {VARIABLES[TokenKind.INFERENCE]: FIRST, VARIABLES[TokenKind.API]: SECOND, "OTHER": "x"}

    def test_served(self) -> None:
        """The keys open, and are in no file, no log line and no worker's environment."""
        with (
            capturedLogs() as events,
            MemoryServer(
                {"default_workers_per_model": 1},
                models={"m": {}},
                snapshots=True,
                dependencies={"environ": self.ENVIRON},
            ) as server,
        ):
            assert server.opens(FIRST)
            assert server.request("POST", "/token?type=management", SECOND).status == 200
            assert server.request("GET", f"/models/{FIRST}", server.key(TokenKind.MANAGEMENT)).status == 404
            [worker] = server.provider.workers
            assert worker.spec.environment["OTHER"] == "x"
            assert not {FIRST, SECOND} & set(worker.spec.environment.values())
            written = [each.read_bytes() for each in server.directory.rglob("*") if each.is_file()]
            assert written
            assert not any(secret.encode() in content for secret in (FIRST, SECOND) for content in written)
        assert not any(secret in str(formatEvent(event)) for secret in (FIRST, SECOND) for event in events)

    def test_taken_from_the_process(self) -> None:
        """The process itself has them no longer in its environment, so that no child can get them."""
        environ = dict(self.ENVIRON)
        assert taken_secrets(environ) == self.ENVIRON
        assert environ == {"OTHER": "x"}
        assert not set(VARIABLES.values()) & visible_environment(self.ENVIRON, ServerOptions()).keys()

    def test_make_server(self) -> None:
        """The command takes them from its process."""
        from twisted_serve.config.load import LoadedOptions
        from twisted_serve.tap import make_server
        from twisted_serve.testing.memory import MemoryServeReactor

        with patch.dict(os.environ, self.ENVIRON):
            made = make_server(cast(IServeReactor, MemoryServeReactor()), LoadedOptions(ServerOptions(), {}, ()))
            assert not set(VARIABLES.values()) & os.environ.keys()
        assert made._dependencies.environ[VARIABLES[TokenKind.API]] == SECOND
