# SPDX-License-Identifier: Apache-2.0
"""Tests for keys that outlive their server (``token_on_restart=keep``)."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

from twisted_serve.auth.kept import Kept, parse_keys, read_kept
from twisted_serve.auth.key_file import MAX_BYTES, KeyFile, KeyFileInUse, render_keys
from twisted_serve.auth.keyring import Granted, Keyring
from twisted_serve.auth.tokens import KeySet, Token, TokenKind, fresh_keys
from twisted_serve.testing.server import EPOCH, MemoryServer
from twisted_serve.testing.strategies.tokens import aware_datetimes, key_sets, lifetimes

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
GOOD = fresh_keys(Random(1).randbytes, NOW, HOUR)
MEMBERS = json.loads(render_keys(GOOD))

# A file that is one byte short of the truth is as torn as half of one.
TORN = [render_keys(GOOD)[:length] for length in (0, 1, 50, 200, len(render_keys(GOOD)) - 1)]


@given(key_sets())
def test_reads_what_is_written(keys: KeySet) -> None:
    """Every key file of a server is read, to the microsecond."""
    assert parse_keys(render_keys(keys)) == tuple(keys)


@given(key_sets(), aware_datetimes(), lifetimes())
def test_dates(keys: KeySet, now: datetime, lifetime: timedelta) -> None:
    """What has expired is left out, and nothing lives longer than a fresh key would."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "key_file.json"
        KeyFile(path).save(keys)
        # The descriptor of a save stays locked as long as it is open, so the content is written as after a crash.
        content = path.read_bytes()
        path.unlink()
        path.touch(0o600)
        path.write_bytes(content)
        kept = read_kept(path, now, lifetime)
    assert kept.reason is None
    found = {token.kind: token for token in kept.tokens}
    for token in keys:
        if token.expires is None:
            assert found[token.kind] == token
        elif token.expires <= now:
            assert token.kind not in found
        else:
            assert found[token.kind] == evolve(token, expires=min(token.expires, now + lifetime))


@given(st.timedeltas(timedelta(seconds=1), 2 * HOUR), st.timedeltas(timedelta(0), 2 * HOUR))
def test_steady_end(left: timedelta, passed: timedelta) -> None:
    """By the clock that is never set, a kept key ends with its date, not after another lifetime."""
    ended = [0.0]
    found = (Token(TokenKind.INFERENCE, GOOD.inference.secret, NOW + left),)
    keyring = Keyring.create(lambda keys: None, Random(2).randbytes, 2 * HOUR, NOW, lambda: ended[0], found=found)
    assert keyring.keys.inference == found[0]
    ended[0] = passed.total_seconds()
    # The date was set back meanwhile.
    answer = keyring.check(TokenKind.INFERENCE, found[0].encoded, NOW)
    assert isinstance(answer, Granted) == (passed.total_seconds() < left.total_seconds())


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    members: dict[str, Any] = json.loads(render_keys(GOOD))
    change(members)
    return json.dumps(members).encode()


STRANGE = {
    "not an object": b"[]",
    "null": b"null",
    "nothing in it": b"{}",
    "a number": b"1e999",
    "deep": b"[" * 9000,
    "not UTF-8": b"\xff\xfe" + render_keys(GOOD),
    "NUL": render_keys(GOOD) + b"\0",
    "more behind it": render_keys(GOOD) + b"{}",
    "another member": changed(lambda it: it.update(named={"key": "x" * 32})),
    "a member twice": render_keys(GOOD)[:-2] + b',"API": {"key": "' + b"Aa0-" * 8 + b'"}}',
    "a short key": changed(lambda it: it["API"].update(key="short")),
    "a long key": changed(lambda it: it["API"].update(key="x" * 33)),
    "a key with a newline": changed(lambda it: it["API"].update(key="x" * 31 + "\n")),
    "a key of other digits": changed(lambda it: it["API"].update(key="\u0661" * 32)),
    "a number as a key": changed(lambda it: it["API"].update(key=12345678901234567890123456789012)),
    "two equal keys": changed(lambda it: it["API"].update(key=MEMBERS["management"]["key"])),
    "an API key that expires": changed(lambda it: it["API"].update({"expiration time": "2027-01-01T00:00:00.000000Z"})),
    "no expiry": changed(lambda it: it["inference"].pop("expiration time")),
    "a date without a zone": changed(lambda it: it["inference"].update({"expiration time": "2027-01-01T00:00:00.0"})),
    "a date of another form": changed(lambda it: it["inference"].update({"expiration time": "2027-1-1T00:00:00.0Z"})),
    "a date that is a number": changed(lambda it: it["inference"].update({"expiration time": 1})),
    "a text for a key": changed(lambda it: it.update(API="x" * 32)),
}


@contextmanager
def file_with(content: bytes, mode: int = 0o600) -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "key_file.json"
        path.write_bytes(content)
        path.chmod(mode)
        yield path


@pytest.mark.parametrize("content", [*TORN, *STRANGE.values(), b" " * (MAX_BYTES + 1)])
def test_not_ours(content: bytes) -> None:
    """A torn, edited or foreign file gives no key; the reason quotes nothing from it."""
    with file_with(content) as path:
        kept = read_kept(path, NOW, HOUR)
        assert kept.tokens == ()
        assert kept.reason
        assert not any(token.secret in kept.reason for token in GOOD)
        assert path.read_bytes() == content


@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    """No bytes raise anything but the one error."""
    with pytest.raises(ValueError, match=r"\Ait"):
        parse_keys(content)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_exposed(mode: int) -> None:
    """Keys that another user may have read or written are not gone on with."""
    with file_with(render_keys(GOOD), mode) as path:
        kept = read_kept(path, NOW, HOUR)
        assert kept == Kept(reason=f"its mode is {mode:04o}, so that other users may have read it")


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.parametrize(
    ("make", "words"),
    [(_link, "a symbolic link"), (_pipe, "not a regular file"), (_directory, "not a regular file")],
)
def test_no_file(make: Callable[[Path], None], words: str) -> None:
    """A link, a pipe and a directory are named, not read; nothing is waited for."""
    with file_with(render_keys(GOOD)) as path:
        make(path)
        assert words in (read_kept(path, NOW, HOUR).reason or "")


def test_another_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user, which this one can read, is not believed."""
    with file_with(render_keys(GOOD)) as path:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        assert read_kept(path, NOW, HOUR) == Kept(reason="it belongs to another user")


def test_in_use() -> None:
    """The file of a running server is taken by no other server."""
    with file_with(render_keys(GOOD)) as path, path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KeyFileInUse, match="another running server"):
            read_kept(path, NOW, HOUR)


def test_none_there() -> None:
    """The first start has nothing to go on with, and nothing to complain of."""
    with TemporaryDirectory() as directory:
        assert read_kept(Path(directory) / "key_file.json", NOW, HOUR) == Kept()


class TestServer:
    """A server with ``token_on_restart=keep``."""

    @pytest.fixture
    def server(self) -> Iterator[MemoryServer]:
        with MemoryServer({"token_on_restart": "keep"}) as server:
            yield server

    @pytest.mark.parametrize("end", [MemoryServer.restart, MemoryServer.crash])
    def test_goes_on(self, server: MemoryServer, end: Callable[[MemoryServer], None]) -> None:
        """After a stop and after a crash the keys are the same, with their dates; the rest of their lives too."""
        server.rotate()
        server.advance(600)
        before, key = server.keys, server.key(TokenKind.INFERENCE)
        end(server)
        assert server.keys == before
        assert json.loads(server.key_file.read_bytes())["inference"]["key"] == key
        assert server.opens(key)
        server.advance(3000 - 0.001)
        assert server.opens(key)
        server.advance(0.002)
        assert not server.opens(key)

    def test_left_behind(self, server: MemoryServer) -> None:
        """The file is left at the stop as it was, for its owner alone, and nothing beside it; no lock is held."""
        content = server.key_file.read_bytes()
        server.server.stopService()
        assert server.key_file.read_bytes() == content
        assert stat.S_IMODE(server.key_file.stat().st_mode) == 0o600
        assert [each.name for each in server.directory.glob("*key_file*")] == ["key_file.json"]
        with server.key_file.open() as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        server._start()

    def test_expired_ones_are_new(self, server: MemoryServer) -> None:
        """What has expired meanwhile is made anew; the rest stays."""
        server.advance(1800)
        server.rotate()
        before = server.keys
        server.server.stopService()
        server.advance(1800)
        server._start()
        assert server.keys.management.secret != before.management.secret
        assert (server.keys.inference, server.keys.api) == (before.inference, before.api)
        assert server.keys.management.expires == EPOCH + 2 * HOUR

    def test_clock_set_back(self, server: MemoryServer) -> None:
        """A date that has become too far away is brought nearer, in the file too."""
        key = server.key(TokenKind.INFERENCE)
        server.server.stopService()
        server.set_date(-86400)
        server._start()
        assert server.key(TokenKind.INFERENCE) == key
        assert server.keys.inference.expires == server.now() + HOUR
        server.advance(3600)
        assert not server.opens(key)

    def test_torn(self, server: MemoryServer) -> None:
        """A torn file is named in the log with the reason, and the keys are new; no key is logged."""
        before = server.keys
        server.server.stopService()
        server.key_file.write_bytes(server.key_file.read_bytes()[:-1])
        with capturedLogs() as events:
            server._start()
        lines = [str(formatEvent(event)) for event in events]
        [line] = [line for line in lines if "No keys are kept" in line]
        assert line.endswith(f"from {server.key_file}, and all are new: it is not whole, or not JSON")
        secrets = {token.secret for token in (*before, *server.keys)}
        assert len(secrets) == 6
        assert not any(secret in text for text in lines for secret in secrets)

    def test_told(self, server: MemoryServer) -> None:
        """The log says which keys are kept, by their public ids."""
        ids = [token.public_id for token in server.keys]
        server.server.stopService()
        with capturedLogs() as events:
            server._start()
        lines = [str(formatEvent(event)) for event in events if "is kept from" in str(event.get("log_format"))]
        assert [each in line for each, line in zip(ids, lines, strict=True)] == [True] * 3

    def test_a_failed_start_loses_nothing(self, server: MemoryServer) -> None:
        """A start that fails leaves the file for the next one."""
        before, options = server.keys, server.options
        server.server.stopService()
        server.options = evolve(options, metrics_token_file=server.directory / "nowhere")
        with pytest.raises(ValueError, match="metrics_token_file"):
            server._start()
        server.options = evolve(options, cors_allowed_origin="\u2603")
        with pytest.raises(ValueError, match="cors_allowed_origin"):
            server._start()
        server.options = evolve(
            options, inference_address="https://127.0.0.1:0", certificate_file="", private_key_file=""
        )
        server._start()
        assert server.keys == before

    def test_one_at_a_time(self, server: MemoryServer) -> None:
        """A second server with the same file fails to start while the first one runs."""
        before = server.keys
        options = {"token_on_restart": "keep", "token_key_file": server.key_file}
        with pytest.raises(KeyFileInUse):
            MemoryServer(options)
        assert server.keys == before
        assert server.opens(before.inference.secret)

    def test_by_default_nothing_is_kept(self) -> None:
        """Without the option a file that was left by a crash is not read: its keys are dead."""
        with MemoryServer() as server:
            before = {token.secret for token in server.keys}
            server.crash()
            assert not before & {token.secret for token in server.keys}
            server.server.stopService()
            assert not server.key_file.exists()
            server._start()
