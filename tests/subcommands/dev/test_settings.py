# SPDX-License-Identifier: Apache-2.0
"""Tests for what an author's server is told to be, and for what the author is told."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import pytest

from twisted_serve.config.addresses import is_loopback
from twisted_serve.subcommands.dev.announcing import announcement, curl_line
from twisted_serve.subcommands.dev.settings import ForAuthors, loaded_options


def test_loopback_only(tmp_path: Path) -> None:
    """All listeners are one port of this machine, there is no gRPC, and all files are in the directory."""
    options = loaded_options(tmp_path, tmp_path, 1234, tokens=True).options
    assert {str(address) for _key, address in options.http_listeners} == {"http://127.0.0.1:1234"}
    assert all(is_loopback(address) for _key, address in options.http_listeners)
    assert options.grpc_listeners == []
    assert not options.disable_token_authorization
    assert options.token_key_file.parent == tmp_path
    assert (options.temp_directory, options.log_files) == (tmp_path, False)
    assert loaded_options(tmp_path, tmp_path, 1234, tokens=False).options.disable_token_authorization


def test_environment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a variable opens the server."""
    (tmp_path / "config.properties").write_text("inference_address=http://0.0.0.0:1\nenable_envvars_config=true\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TS_DISABLE_TOKEN_AUTHORIZATION", "true")
    loaded = loaded_options(tmp_path, tmp_path, 0, tokens=True)
    assert not loaded.options.disable_token_authorization
    assert str(loaded.options.inference_address) == "http://127.0.0.1:0"


@pytest.mark.parametrize(
    ("logger", "text", "shown"),
    [
        ("MODEL_LOG", '  File "/t/models/12/handler.py", line 3', '  File "{author}/handler.py", line 3'),
        ("MODEL_LOG", '  File "/t/models/1/gone.py", line 3', '  File "/t/models/1/gone.py", line 3'),
        ("MODEL_LOG", '  File "/t/models/1/../../etc/passwd", line 3', '  File "/t/models/1/../../etc/passwd", line 3'),
        ("MODEL_LOG", "what %s the handler prints", "what %s the handler prints"),
        ("MODEL_LOG", "[PID]123", None),
        ("MODEL_LOG", "Torch worker started.", None),
        ("ACCESS_LOG", "Torch worker started.", "Torch worker started."),
    ],
)
def test_shown(tmp_path: Path, logger: str, text: str, shown: str | None) -> None:
    """The author's files stand for their copies, and a worker's own lines are left out."""
    (tmp_path / "handler.py").touch()
    record = logging.LogRecord(logger, logging.INFO, "", 0, text, (), None)
    passes = ForAuthors("/t/models", str(tmp_path)).filter(record)
    assert (record.getMessage() if passes else None) == (shown and shown.replace("{author}", str(tmp_path)))


def test_curl() -> None:
    """The line is one of a shell, with the key if one is needed, and sends what the handler takes."""
    url = "http://127.0.0.1:8080/predictions/m"
    words = shlex.split(curl_line(url, "handler.py", "abc-_"))
    assert words[:4] == ["curl", url, "-H", "Authorization: Bearer abc-_"]
    assert words[-1] == '{"input": "hello"}'
    assert "Authorization" not in curl_line(url, "handler.py", None)
    assert shlex.split(curl_line(url, "image_classifier", None))[-2:] == ["-T", "image.jpg"]
    assert "Content-Type: text/plain" in shlex.split(curl_line(url, "text_classifier", None))


def test_announcement() -> None:
    """The announcement says that tokens are off, if they are."""
    assert "Tokens are off" in announcement("h.py", "h", "http://x", "curl x", tokens=False)
    assert "Tokens" not in announcement("h.py", "h", "http://x", "curl x", tokens=True)
