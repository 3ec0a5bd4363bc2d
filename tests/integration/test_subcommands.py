# SPDX-License-Identifier: Apache-2.0
"""Tests for the sub-commands of ``twisted-serve`` with servers that are real."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from datetime import datetime, timezone
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.integration.conftest import COMMAND, LONG, MakeServer, Server
from tests.listening.test_tls import identity
from twisted_serve.subcommands import COMPLETION
from twisted_serve.subcommands.group import operate

pytestmark = pytest.mark.integration

# Answers in several ways, as it is asked to.
MODEL = """
def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "Content-Type") == "image/png":
        context.set_response_content_type(0, "image/png")
        return [bytes(row["body"]) for row in data]
    print("asked for", context.get_request_header(0, "X-Word"), flush=True)
    return [row["body"] if "body" in row else {key: bytes(row[key]).decode() for key in row} for row in data]
"""

BROKEN = "raise ValueError('no weights here')\n"

NONE: Mapping[str, str] = {}

PNG = b"\x89PNG\r\n\x1a\n\0\x1b[2J"


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Iterator[Server]:
    """Start the server of most tests."""
    server = make_module_server({"model": MODEL, "other": MODEL, "broken": BROKEN}, token_store="keys.json")
    (server.cwd / "picture").write_bytes(PNG)
    (server.cwd / "x.json").write_text('{"a": 1}')
    server.start("--models", "model=model", "--enable-model-api")
    yield server
    assert server.stop() == 0
    assert run(server, "status").returncode == 3
    assert os.listdir(run_files(server)) == []


def run_files(server: Server) -> Path:
    return server.temp / f".twisted_serve-{os.geteuid()}"


def run(
    server: Server, *words: str, given: bytes = b"", cwd: Path | None = None, environ: Mapping[str, str] = NONE
) -> subprocess.CompletedProcess[bytes]:
    """Run a sub-command in this process, as if it was one of its own in the server's place: that costs a tenth."""
    out, err = TextIOWrapper(BytesIO()), TextIOWrapper(BytesIO())
    here = Path.cwd()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {**server.environ, **environ}, clear=True))
        stack.enter_context(patch("tempfile.tempdir", environ.get("TMPDIR", server.environ["TMPDIR"])))
        stack.enter_context(patch("sys.stdin", TextIOWrapper(BytesIO(given))))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        stack.callback(os.chdir, here)
        os.chdir(cwd or server.cwd)
        status = operate(words)
        out.flush()
        err.flush()
    return subprocess.CompletedProcess(words, status, out.buffer.getvalue(), err.buffer.getvalue())


def said(server: Server, *words: str, status: int = 0) -> Any:
    """Run a sub-command with ``--json``; return what it says, and the error without a result."""
    ended = run(server, *words, "--json")
    assert ended.returncode == status, ended.stderr
    return json.loads(ended.stdout) if status == 0 else (ended.stdout, ended.stderr)


def told(server: Server, *words: str, status: int = 0, environ: Mapping[str, str] = NONE) -> str:
    """Run a sub-command; return what it tells people: the result, or the error, which is one line, without one."""
    ended = run(server, *words, environ=environ)
    assert ended.returncode == status, (ended.stdout, ended.stderr)
    if status:
        assert ended.stdout == b""
        assert ended.stderr.count(b"\n") == 1, ended.stderr
        return ended.stderr.decode()
    return ended.stdout.decode()


def on_terminal(server: Server, *words: str, status: int = 0, **environ: str) -> bytes:
    """Run a sub-command on a terminal of its own; return all that is on it."""
    ours, its = pty.openpty()
    command = [str(COMMAND), *words]
    environ = {**server.environ, "TERM": "xterm", **environ}
    with subprocess.Popen(command, cwd=server.cwd, env=environ, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        seen = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:
                break
            if not read:
                break
            seen += read
        os.close(ours)
        assert process.wait(LONG) == status, seen
    return seen


def test_status(server: Server) -> None:
    """It says what runs where, which models there are, and how long the keys live; no key itself."""
    [found] = said(server, "status")["servers"]
    assert found["pid"] == server.pid
    assert found["ready"] is True
    assert found["addresses"]["inference"] == f"http://127.0.0.1:{server.ports['inference']}"
    assert found["directory"] == str(server.cwd)
    assert [each["name"] for each in found["keys"]] == ["inference", "management", "API"]
    assert "model" in [model["modelName"] for model in found["models"]]
    text = told(server, "status")
    assert f"process {server.pid}, in {server.cwd}: ready" in text
    assert re.search(r"inference expires in (1 h|[45]\d m)\b", text)
    for key in server.keys().values():
        assert key not in text + json.dumps(found)
    assert told(server, "status", "--pid", str(server.pid)) != ""
    at_url = said(server, "status", "--url", f"http://localhost:{server.ports['management']}", "--key", "wrong")
    assert at_url["servers"][0]["problem"].startswith("The server does not accept the key")


def test_models(server: Server) -> None:
    """Models are listed, described, registered, scaled, made the default, and unregistered."""
    status = said(server, "models", "register", "other", "--name", "copy")["status"]
    assert status == 'Model "copy" Version: 1.0 registered with 1 initial workers'
    listed = said(server, "models", "list")["models"]
    assert {each["modelName"] for each in listed} >= {"model", "copy"}
    [copy] = [each for each in listed if each["modelName"] == "copy"]
    assert [(each["modelVersion"], each["default"], len(each["workers"])) for each in copy["versions"]] == [
        ("1.0", True, 1)
    ]
    assert told(server, "models", "scale", "copy", "1.0", "--min", "2").startswith(
        "Workers scaled to 2 for model: copy"
    )
    assert said(server, "models", "describe", "copy")[0]["minWorkers"] == 2
    assert "minWorkers               2\n" in told(server, "models", "describe", "copy", "all")
    row = next(line for line in told(server, "models", "list").splitlines() if line.startswith("copy"))
    assert row.split() == ["copy", "1.0", "yes", "2", "of", "2", "0", "ready"]
    assert "updated" in told(server, "models", "set-default", "copy", "1.0")
    assert told(server, "models", "unregister", "copy") == 'Model "copy" unregistered\n'


def test_refused(server: Server) -> None:
    """What the server refuses has its reason and status 1, and leaves nothing behind."""
    assert told(server, "models", "describe", "none", status=1) == "Error: Model not found: none\n"
    assert "no weights here" in told(server, "models", "register", "broken", status=1)
    assert "broken" not in told(server, "models", "list")
    assert "Relative path is not allowed" in told(server, "models", "register", "../store", status=1)
    assert said(server, "models", "unregister", "none", status=1) == (b"", b"Error: Model not found: none\n")
    assert "Model not found: a b?c%&#" in told(server, "models", "scale", "a b?c%&#", "--min", "1", status=1)
    assert "escaped slash" in told(server, "models", "scale", "a/b", "--min", "1", status=1)


def test_predict(server: Server) -> None:
    """A model answers to a file, standard input and fields; the type that was guessed is said."""
    ended = run(server, "predict", "model", "x.json", "-H", "X-Word: seven")
    assert (ended.returncode, ended.stderr) == (0, b"Sent as application/json (by its name).\n")
    assert json.loads(ended.stdout) == {"a": 1}
    server.until(lambda: "asked for seven" in told(server, "logs", "--model", "model"), "the line of the handler")
    found = said(server, "predict", "model", "x.json", "--version", "1.0")
    assert (found["status"], found["body"]) == (200, {"a": 1})
    assert json.loads(told(server, "predict", "model", "--data", "name=Ada", "--data", "b=2")) == {
        "name": "Ada",
        "b": "2",
    }
    assert told(server, "predict", "model", "picture", "-o", "answer") == ""
    assert (server.cwd / "answer").read_bytes() == PNG
    ended = run(server, "predict", "model", "-", given=PNG)
    assert (ended.stdout, ended.stderr) == (PNG, b"Sent as image/png (by its content).\n")
    assert said(server, "predict", "model", "picture")["bodyBase64"].startswith("iVBORw0KGgo")


def test_not_predicted(server: Server) -> None:
    """What goes wrong with a prediction is one sentence, and no file is left."""
    assert told(server, "predict", "none", "--data", "a=1", status=1) == "Error: Model not found: none\n"
    assert "none.json: No such file" in told(server, "predict", "model", "none.json", status=1)
    told(server, "predict", "none", "--data", "a=1", "-o", "answer-to-none", status=1)
    assert not list(server.cwd.glob("*answer-to-none*"))
    assert b"not both" in run(server, "predict", "model", "x.json", "--data", "a=1").stderr
    for header in ("X", ": a", "Authorization: Bearer x", "X: a\r\nY: b"):
        assert run(server, "predict", "model", "-H", header).returncode == 2


def test_tokens(server: Server) -> None:
    """Keys are shown one by one, alone, replaced, and listed without their secrets."""
    keys = server.keys()
    for kind, key in keys.items():
        assert told(server, "token", "show", kind.lower()) == f"{key}\n"
    assert told(server, "token", "show", "API", "--header") == f"Authorization: Bearer {keys['API']}\n"
    assert said(server, "token", "show", "inference") == {"type": "inference", "key": keys["inference"]}
    fresh = told(server, "token", "rotate", "inference").strip()
    assert fresh != keys["inference"]
    assert fresh == server.keys()["inference"]
    assert said(server, "token", "rotate", "management")["key"] == server.keys()["management"]
    assert "restart" in told(server, "token", "rotate", "API", status=1)
    listed = run(server, "token", "list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [b"name", b"inference", b"management", b"API"]
    assert not [key for key in server.keys().values() if key.encode() in listed.stdout + listed.stderr]


def test_named_keys(server: Server) -> None:
    """A consumer's key is created, used, limited, changed, rotated and revoked."""
    scopes = ("--scope", "inference:mod*", "--scope", "inference:x")
    ended = run(server, "token", "create", "team", *scopes, "--expires", "30d")
    assert ended.returncode == 0, ended.stderr
    expiry, warning = ended.stderr.decode().splitlines()
    assert re.fullmatch(r"The key team expires in (30 d|29 d 23 h)\.", expiry)
    assert warning == "Warning: inference:x matches no model that is registered now."
    key = {"TS_KEY": ended.stdout.decode().strip()}
    asked = ("predict", "model", "--data", "a=1")
    assert told(server, *asked, environ=key) != ""
    line = told(server, "models", "list", status=4, environ=key)
    assert line == "Error: The key team has no scope for this request (list models).\n"
    assert "has the name 'team' already" in told(server, "token", "create", "team", "--scope", "metrics", status=1)
    assert "'x' is no scope" in told(server, "token", "create", "b", "--scope", "x", status=1)
    row = next(line for line in told(server, "token", "list").splitlines() if line.startswith("team"))
    assert " inference:mod* inference:x " in row
    assert row.endswith(" ago    in 30 d")
    assert key["TS_KEY"] not in json.dumps(said(server, "token", "list"))
    assert said(server, "token", "change", "team", "--disable", "--concurrent", "3")["concurrent"] == 3
    assert "does not accept" in told(server, *asked, status=4, environ=key)
    assert said(server, "token", "change", "team", "--enable", "--no-concurrent", "--rate", "1")["concurrent"] is None
    assert told(server, *asked, environ=key) != ""
    assert "Try again in " in told(server, *asked, status=1, environ=key)
    fresh = {"TS_KEY": said(server, "token", "rotate", "team")["key"]}
    assert "does not accept" in told(server, *asked, status=4, environ=key)
    assert run(server, "token", "change", "team").returncode == 2
    assert run(server, "token", "create", "b", "--scope", "metrics", "--expires", "soon").returncode == 2
    assert said(server, "token", "revoke", "team") == {"revoked": ["team"]}
    assert "does not accept" in told(server, *asked, status=4, environ=fresh)
    assert told(server, "token", "revoke", "team", status=1) == "Error: Key not found: team\n"


def test_keys_refused(server: Server) -> None:
    """A wrong key and none have status 4, and are not told again; a mistyped one is not sent."""
    url = f"http://localhost:{server.ports['inference']}"
    line = told(server, "predict", "model", "--data", "a=1", status=4, environ={"TS_KEY": "wrong-key"})
    assert line == "Error: The server does not accept the key: it is wrong, expired, revoked or of another kind.\n"
    line = told(server, "predict", "model", "--data", "a=1", "--url", url, status=4)
    assert line.startswith("Error: The server needs a key: set TS_KEY")
    refusals = server.log().count("refused")
    assert "checksum" in told(server, "models", "list", status=4, environ={"TS_KEY": "tsk_" + "a" * 38})
    assert server.log().count("refused") == refusals
    key = server.keys()["inference"]
    assert told(server, "predict", "model", "--data", "a=1", environ={"TS_KEY": key, "TS_URL": url}) != ""
    assert "not accept" in told(server, "models", "list", status=4, environ={"TS_KEY": key})
    assert run(server, "token", "show", "inference", "--url", url).returncode == 3


def test_no_server(server: Server, tmp_path: Path) -> None:
    """Where no server is, the status is 3, with what to do."""
    line = told(server, "status", "--url", "http://127.0.0.1:1", status=3)
    assert line == "Error: http://127.0.0.1:1 cannot be reached: Connection refused. Is a server running there?\n"
    assert told(server, "logs", status=3, environ={"TMPDIR": str(tmp_path)}).startswith(
        "Error: No server of yours is running"
    )
    assert "cannot be reached: No such file" in told(server, "models", "list", "--url", "unix:/none", status=3)
    grpc = f"http://127.0.0.1:{grpc_port(server)}"
    assert "This port serves gRPC" in told(server, "models", "list", "--url", grpc, status=1)
    https = grpc.replace("http:", "https:")
    assert "cannot be reached: " in told(server, "models", "list", "--url", https, status=3)
    foreign = tmp_path / f".twisted_serve-{os.geteuid()}"
    foreign.symlink_to(run_files(server))
    assert "is a link or no directory" in told(server, "status", status=3, environ={"TMPDIR": str(tmp_path)})


def grpc_port(server: Server) -> str:
    [found] = said(server, "status", "--pid", str(server.pid))["servers"]
    return str(found["grpcAddresses"]["inference"]).rpartition(":")[2]


def test_logs(server: Server) -> None:
    """The log is printed, and followed until Ctrl-C."""
    assert run(server, "predict", "model", "--data", "word=first").returncode == 0
    assert len(told(server, "logs", "-n", "3").splitlines()) == 3
    server.until(lambda: "POST /predictions/model" in told(server, "logs", "--access"), "the request")
    line = json.loads(run(server, "logs", "-n", "1", "--json").stdout)
    assert line["file"] == str(server.cwd / "logs" / "ts_log.log")
    command = [str(COMMAND), "logs", "-f", "-n", "0", "--model", "model"]
    with subprocess.Popen(command, cwd=server.cwd, env=server.environ, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        os.set_blocking(following.stdout.fileno(), False)
        seen = b""

        def has_seen() -> bool:
            nonlocal seen
            run(server, "predict", "model", "--data", "a=1", "-H", "X-Word: followed")
            seen += following.stdout.read() or b""  # type: ignore[union-attr]
            return b"asked for followed" in seen

        server.until(has_seen, "a line that is followed")
        following.send_signal(signal.SIGINT)
        assert following.wait(LONG) == 130


def test_terminal(server: Server) -> None:
    """A terminal gets colours and what goes on, unless it wants none, and no binary answer."""
    assert b"\x1b[32mready" in on_terminal(server, "models", "list")
    assert b"\x1b" not in on_terminal(server, "models", "list", NO_COLOR="1")
    refused = on_terminal(server, "predict", "model", "picture", status=1)
    assert b"The answer is no text (image/png): -o FILE keeps it" in refused
    assert b"\x1b" not in refused
    assert on_terminal(server, "predict", "model", "x.json").endswith(b"}\r\n")
    seen = on_terminal(server, "models", "register", "other", "--name", "shown")
    assert b"shown" in seen
    assert b"registered with 1 initial workers" in seen
    assert run(server, "models", "unregister", "shown").returncode == 0


def test_completion(server: Server) -> None:
    """A shell completes names of models."""
    words = ["twisted-serve", "predict", "mod"]
    environ = {COMPLETION: "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": "2"}
    assert told(server, environ=environ) == "plain,model\n"
    environ["TMPDIR"] = str(server.cwd)
    assert told(server, environ=environ) == "\n"


def test_two_servers(server: Server, make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two servers, the one of the directory is asked, or the chosen one; TLS and Unix sockets are addresses, too."""
    monkeypatch.setattr("tests.listening.test_tls.NOW", datetime.now(timezone.utc))
    second = make_server({"model": MODEL})
    shown = identity("localhost")
    (second.cwd / "tls.crt").write_bytes(shown.certificate_pem)
    (second.cwd / "tls.key").write_bytes(shown.key_pem())
    second.configure(
        inference_address="https://127.0.0.1:0",
        management_address=f"unix:{tmp_path}/m",
        certificate_file="tls.crt",
        private_key_file="tls.key",
        log_files="false",
    )
    second.environ["TMPDIR"] = str(server.temp)
    (server.temp / ".model_server.pid").rename(server.temp / "kept")
    try:
        second.start("--models", "model=model")
        assert said(second, "status", "--pid", str(second.pid))["servers"][0]["pid"] == second.pid
        assert {each["pid"] for each in said(second, "status")["servers"]} == {server.pid, second.pid}
        # The name of the certificate is another, but the certificate is that of the file.
        assert json.loads(told(second, "predict", "model", "--data", "a=1")) == {"a": "1"}
        assert told(second, "models", "list").split()[6:8] == ["model", "1.0"]
        elsewhere = run(server, "models", "list", cwd=tmp_path)
        assert elsewhere.returncode == 3
        assert f"{second.pid}  https://127.0.0.1:" in elsewhere.stderr.decode()
        assert f"\n  {server.pid}  http://127.0.0.1:" in elsewhere.stderr.decode()
        port = said(second, "status", "--pid", str(second.pid))["servers"][0]["addresses"]["inference"].rpartition(":")[
            2
        ]
        url, key = f"https://localhost:{port}", second.keys()["inference"]
        asked = ("predict", "model", "--data", "a=1", "--url", url)
        assert "cannot be verified" in told(second, *asked, status=3, environ={"TS_KEY": key})
        assert told(second, *asked, "--cacert", "tls.crt", environ={"TS_KEY": key}) != ""
        assert told(second, *asked, "--insecure", environ={"TS_KEY": key}) != ""
        assert "cannot be used for TLS" in told(second, *asked, "--cacert", "none", status=1)
        (second.cwd / "tls.crt").write_bytes(identity("localhost").certificate_pem)
        assert "cannot be verified" in told(second, "predict", "model", "--data", "a=1", status=3)
        assert "Model server started." in told(second, "logs", "-n", "1000")
        # A server that was killed is forgotten.
        second.kill()
        assert [each["pid"] for each in said(second, "status")["servers"]] == [server.pid]
        assert os.listdir(run_files(server)) == [f"{server.pid}.json"]
    finally:
        (server.temp / "kept").rename(server.temp / ".model_server.pid")


def test_twistd(make_server: MakeServer) -> None:
    """A server of twistd is found, too, and forgotten at its end; its log is twistd's."""
    server = make_server()
    words = ["twisted-serve", "--ncs", "--model-store", str(server.store)]
    server.start(command=[str(COMMAND.with_name("twistd")), "--nodaemon", "--pidfile=", *words])
    [found] = said(server, "status")["servers"]
    assert (found["pid"], found["models"], found["logDirectory"]) == (server.pid, [], None)
    assert told(server, "models", "list") == "No models are registered.\n"
    assert "twistd's log" in told(server, "logs", status=1)
    # So a process of twistd ends.
    assert server.stop() == -signal.SIGTERM
    assert os.listdir(run_files(server)) == []
