# SPDX-License-Identifier: Apache-2.0
"""Tests for gRPC with a client that is real, the C core of ``grpcio``, against a server that is real."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.integration.adder import ADDER
from tests.integration.conftest import COMMAND, LONG, MakeServer, Server

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

from tests.integration.grpc_client import (  # noqa: E402 - without grpcio it cannot be imported
    INFERENCE,
    MANAGEMENT,
    OPTIONS,
    Client,
    connected,
    refusal,
    request_of,
)
from twisted_serve import rpc  # noqa: E402
from twisted_serve.rpc import messages  # noqa: E402

pytestmark = pytest.mark.integration

MIB = 1 << 20

PROGRAM = Path(__file__).with_name("grpc") / "torchserve_client.py"

HANDLER = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return None
    what, _, argument = bytes(data[0].get("data") or data[0].get("body")).decode().partition(" ")
    return [globals()[what](context, argument)]

def echo(context, text):
    return text

def words(context, text):
    for word in text.split():
        send([word], context.request_ids, "", 200, context)
    return "end"

def big(context, size):
    return b"x" * int(size)

def wait(context, path):
    # Until the client has gone; the worker has no time for others meanwhile.
    open(path, "w").close()
    end = time.monotonic() + 60
    while time.monotonic() < end and not context.is_cancelled(0):
        time.sleep(0.01)
    open(path + ".left", "w").close()
    return "late"

def until(context, path):
    open(path + ".begun", "w").close()
    while not os.path.exists(path):
        time.sleep(0.01)
    return "in time"

def flood(context, path):
    for number in range(64):
        if context.is_cancelled(0):
            break
        send([b"x" * 1_000_000], context.request_ids, "", 200, context)
        with open(path, "a") as note:
            note.write("sent\\n")
    return "end"

def raises(context, text):
    raise ValueError(text)
"""

STATEFUL = {"sequenceBatching": True, "maxNumSequence": 4, "maxSequenceJobQueueSize": 5, "sequenceMaxIdleMSec": 0}


def start(make: MakeServer, *words: str, **properties: object) -> Server:
    """Start a server with a model that does as it is told."""
    return make({"m": HANDLER}, **properties).start("--models", "m=m", *words)


def target(server: Server, role: str = "inference") -> str:
    """Return where a listener of gRPC is."""
    return f"127.0.0.1:{port_of(server, role)}"


def port_of(server: Server, role: str = "inference") -> int:
    """Return the port of a listener of gRPC."""
    [port] = re.findall(rf"gRPC {role} API bind to: \S*127\.0\.0\.1:(\d+)$", server.log(), re.M)
    return int(port)


def client_of(server: Server, kind: str = "inference", **how: Any) -> Any:
    """Open a channel with the key of a kind."""
    return connected(target(server, kind), server.keys()[kind], **how)


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with a model that does as it is told, and one with sequences."""
    sizes = {"max_request_size": 10_000_000, "max_response_size": 10_000_000}
    made = make_module_server({"m": HANDLER}, enable_model_api="true", **sizes)
    made.add_model("adder", ADDER, minWorkers=1, maxWorkers=1, batchSize=2, **STATEFUL)
    return made.start("--models", "m=m", "adder=adder")


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """Open a channel to the server of the module, with its key."""
    with client_of(server) as opened:
        yield opened


def test_calls(server: Server, client: Client) -> None:
    """Each kind of call is answered; compressed messages, large ones and errors are what a client expects."""
    assert client.predict("m", b"echo hello") == b"hello"
    health, call = client.unary(f"{INFERENCE}/Ping", messages.Empty(), messages.TorchServeHealthResponse)
    assert '"status": "Healthy"' in health.health
    assert "x-request-id" in dict(call.initial_metadata())
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        assert client.predict("m", b"echo " + b"a" * 100_000, compression=compression) == b"a" * 100_000
    large = b"echo " + bytes(range(33, 127)) * 40_000
    assert client.predict("m", large) == large[5:]
    assert [each.prediction for each in client.stream("m", b"words a b c")] == [b"a", b"b", b"c", b"end"]
    # A handler that sends no parts sends one.
    assert [each.prediction for each in client.stream("m", b"echo whole")] == [b"whole"]
    assert refusal(lambda: client.predict("no")) == (
        "INTERNAL",
        "Model not found: no\norg.pytorch.serve.archive.model.ModelNotFoundException",
    )
    assert refusal(lambda: client.predict("m", b"raises it"))[0] == "UNAVAILABLE"
    code, text = refusal(lambda: client.predict("m", b"echo " + b"x" * 10_000_000))
    assert code == "RESOURCE_EXHAUSTED"
    assert "10000000" in text.replace("_", "").replace(" ", "")
    # The bound of clients, unless they set another.
    with client_of(server, options=[("grpc.max_receive_message_length", 4 * MIB)]) as usual:
        assert refusal(lambda: usual.predict("m", b"big %d" % (4 * MIB + 1)))[0] == "RESOURCE_EXHAUSTED"
    assert len(client.predict("m", b"big %d" % (4 * MIB + 1))) == 4 * MIB + 1
    assert client.predict("m", b"echo still here") == b"still here"
    with client_of(server, "management") as management:
        request = messages.DescribeModelRequest(model_name="m")
        described, _ = management.unary(f"{MANAGEMENT}/DescribeModel", request, messages.ManagementResponse)
        assert '"modelName": "m"' in described.msg
        assert management.health() == "SERVING"
    server.until(lambda: '"gRPC /org.pytorch' in server.log(), "a line of the access log")


def test_sequences(client: Client) -> None:
    """StreamPredictions2 adds up each sequence by itself; an error is a message, and the stream goes on."""
    requests = [
        request_of("adder", b"1", sequence="a", ts_request_sequence_start=b"true"),
        request_of("adder", b"10", sequence="b", ts_request_sequence_start=b"true"),
        request_of("adder", b"2", sequence="a"),
        request_of("adder", b"3"),
        request_of("adder", b"20", sequence="b", ts_request_sequence_end=b"true"),
        request_of("adder", b"4", sequence="a", ts_request_sequence_end=b"true"),
    ]
    answers = list(client.converse(requests))
    assert len(answers) == len(requests)
    sums = {name: [int(each.prediction) for each in answers if each.sequence_id == name] for name in "ab"}
    assert sums == {"a": [1, 3, 7], "b": [10, 30]}
    [error] = [each for each in answers if each.HasField("status")]
    assert (error.status.code, error.prediction) == (13, b"")
    assert "sequenceId" in error.status.message


def test_deadline_and_cancel(server: Server, client: Client, tmp_path: Path) -> None:
    """A call that is late or cancelled frees its worker, which answers the next call at once."""
    late, cancelled, streamed = (tmp_path / name for name in ("late", "cancelled", "streamed"))
    for seconds in (0.5, 2.0, 8.0):
        call = partial(client.predict, "m", b"wait %s" % bytes(late), timeout=seconds)
        assert refusal(call)[0] == "DEADLINE_EXCEEDED"
        # On a busy machine it may be late before it is in the worker.
        if late.exists():
            break
    assert client.predict("m", b"echo next", timeout=5) == b"next"
    for note, begin in ((cancelled, client.begin), (streamed, client.stream)):
        call = begin("m", b"wait %s" % bytes(note))
        server.until(note.exists, "the handler to begin")
        call.cancel()
        assert client.predict("m", b"echo next", timeout=5) == b"next"
    for note in (late, cancelled, streamed):
        assert note.with_name(f"{note.name}.left").exists()
    # A connection that is lost is the same.
    lost = tmp_path / "lost"
    with client_of(server) as other:
        # A call without a reference is cancelled by grpcio.
        call = other.begin("m", b"wait %s" % bytes(lost))
        server.until(lost.exists, "the handler to begin")
    assert client.predict("m", b"echo next", timeout=5) == b"next"


def test_asyncio(server: Server, tmp_path: Path) -> None:
    """The client for ``asyncio`` gets the same: many calls at once, a stream, a conversation, a cancelled call."""
    note = tmp_path / "asyncio"

    async def ask() -> None:
        metadata = (("authorization", f"Bearer {server.keys()['inference']}"),)
        async with grpc.aio.insecure_channel(target(server), OPTIONS) as channel:
            kinds = (messages.PredictionsRequest.SerializeToString, messages.PredictionResponse.FromString)
            predict = channel.unary_unary(f"{INFERENCE}/Predictions", *kinds)
            requests = [request_of("m", b"echo %d" % number) for number in range(90)]
            answers = await asyncio.gather(*(predict(each, metadata=metadata, timeout=LONG) for each in requests))
            assert [each.prediction for each in answers] == [b"%d" % number for number in range(90)]
            stream = channel.unary_stream(f"{INFERENCE}/StreamPredictions", *kinds)
            parts = stream(request_of("m", b"words a b"), metadata=metadata, timeout=LONG)
            assert [each.prediction async for each in parts] == [b"a", b"b", b"end"]
            converse = channel.stream_stream(f"{INFERENCE}/StreamPredictions2", *kinds)
            call = converse(metadata=metadata, timeout=LONG)
            for number in (1, 2):
                await call.write(request_of("adder", b"%d" % number, sequence=tmp_path.name))
                assert (await call.read()).prediction == (b"1", b"3")[number - 1]
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
            late = predict(request_of("m", b"wait %s" % bytes(note)), metadata=metadata, timeout=LONG)
            while not note.exists():
                await asyncio.sleep(0.02)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            assert (await predict(request_of("m", b"echo x"), metadata=metadata, timeout=5)).prediction == b"x"

    asyncio.run(ask())


def test_torchserve_client(server: Server, tmp_path: Path) -> None:
    """A program that was written for TorchServe, with stubs from the files that the package ships, works as it is."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    protos, stubs = Path(rpc.__path__[0]) / "protos", tmp_path / "stubs"
    stubs.mkdir()
    files = ["inference.proto", "management.proto", "google/rpc/status.proto"]
    generate = ["-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={stubs}", f"--grpc_python_out={stubs}", *files]
    subprocess.run([sys.executable, *generate], capture_output=True, timeout=LONG, check=True)
    keys = server.keys()
    (tmp_path / "text").write_text("words a b")
    for number in (1, 2):
        (tmp_path / f"{number}").write_text(f"{number}")
    # The server outlives this test, which may be run again: what it leaves there has a name for each time.
    this = tmp_path.name
    archive = server.add_archive(this, HANDLER)

    def run(kind: str, *words: str) -> str:
        where = ["--inference", target(server), "--management", target(server, "management")]
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *where, "--auth-token", keys[kind], *words],
            cwd=tmp_path,
            env={**server.environ, "PYTHONPATH": str(stubs)},
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        # The C core of grpcio may write warnings to stderr.
        return done.stdout if done.returncode == 0 else done.stderr

    assert "Healthy" in run("inference", "ping")
    assert run("inference", "infer", "m", "text") == "abend\n"
    assert run("inference", "infer_stream", "m", "text") == "a\nb\nend\n"
    assert run("inference", "infer_stream2", "adder", this, "1,2") == "1\n3\n"
    registered = f'Model "{this}" Version: 1.0 registered with 1 initial workers\n'
    assert run("management", "register", this, archive) == registered
    assert run("management", "unregister", this) == f'Model "{this}" unregistered\n'
    assert "PERMISSION_DENIED: Token Authorization" in run("inference", "register", this, archive)


def test_stalled_client(server: Server, client: Client, tmp_path: Path) -> None:
    """A client that does not read holds its handler back, fills no memory, and gets everything in the end."""
    note = tmp_path / "stalled"
    front = psutil.Process(server.pid)
    before = front.memory_info().rss
    call = client.stream("m", b"flood %s" % bytes(note))
    server.until(note.exists, "the first message")
    lines = -1
    while lines != len(note.read_text().splitlines()):
        lines = len(note.read_text().splitlines())
        for _ in range(30):
            assert client.health() == "SERVING"
            time.sleep(0.01)
    assert lines < 40, "the handler was not held up"
    assert front.memory_info().rss - before < 20 * MIB
    assert sum(len(each.prediction) for each in call) == 64_000_003
    assert front.memory_info().rss - before < 20 * MIB


def test_keys(make_server: MakeServer) -> None:
    """A call needs the key of its listener: none, a wrong, another, a replaced and an expired one are refused."""
    server = start(make_server, token_expiration_min=0.1)
    began = time.monotonic()

    def rotate() -> str:
        return f"Bearer {server.curl('management', '/token?type=inference', key='API').json()['key']}"

    with connected(target(server)) as client:

        def shown(*values: str) -> dict[str, Any]:
            return {"metadata": [("authorization", value) for value in values]}

        missing = refusal(lambda: client.predict("m", b"echo x"))
        assert missing[0] == "PERMISSION_DENIED"
        assert missing[1].startswith("Token Authorization failed")
        # Those of the start may have expired before the server was ready.
        right, keys = rotate(), server.keys()
        assert client.predict("m", b"echo x", **shown(right)) == b"x"
        for wrong in (
            ("Bearer wrong",),
            (f"Bearer {keys['management']}",),
            (keys["inference"],),
            ("Bearer wrong", right),
            (right, right),
        ):
            assert refusal(partial(client.predict, "m", b"echo x", **shown(*wrong)))[0] == "PERMISSION_DENIED", wrong
        # A message that is large is not waited for.
        began_large = time.monotonic()
        assert refusal(lambda: client.predict("m", b"x" * 6_000_000))[0] == "PERMISSION_DENIED"
        assert time.monotonic() - began_large < 5
        right = rotate()
        assert client.predict("m", b"echo x", **shown(right)) == b"x"
        new = rotate()
        rotated = time.monotonic()
        assert client.predict("m", b"echo x", **shown(new)) == b"x"
        assert refusal(lambda: client.predict("m", b"echo x", **shown(right)))[0] == "PERMISSION_DENIED"
        assert client.health() == "SERVING"
        time.sleep(max(0.0, rotated + 6.5 - time.monotonic()))
        code, text = refusal(lambda: client.predict("m", b"echo x", **shown(new)))
        assert code == "PERMISSION_DENIED"
        assert "expired" in text
    assert time.monotonic() - began < LONG
    assert server.stop() == 0


@frozen
class Certificate:
    """A certificate and its key, PEM."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certify(name: str) -> Certificate:
    """Make a certificate for loopback, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(built, key)


def test_tls(make_server: MakeServer) -> None:
    """Both ports use TLS, agree on h2, want a certificate of the client, and show a renewed one after SIGHUP."""
    server = make_server({"m": HANDLER})
    shown, renewed, known, stranger = (certify(name) for name in ("localhost", "renewed", "client", "stranger"))

    def write(certificate: Certificate) -> None:
        (server.cwd / "tls.crt").write_bytes(certificate.pem)
        (server.cwd / "tls.key").write_bytes(certificate.key_pem)
        (server.cwd / "tls.key").chmod(0o600)

    write(shown)
    (server.cwd / "clients.crt").write_bytes(known.pem)
    server.configure(
        enable_grpc_ssl="true",
        certificate_file="tls.crt",
        private_key_file="tls.key",
        client_certificate="required",
        client_ca_file="clients.crt",
    )
    server.start("--models", "m=m")

    def asked(trusted: Certificate, own: Certificate | None, kind: str = "inference") -> str:
        pair = (None, None) if own is None else (own.key_pem, own.pem)
        credentials = grpc.ssl_channel_credentials(trusted.pem, *pair)
        with client_of(server, kind, credentials=credentials) as client:
            return str(client.health())

    assert asked(shown, known) == asked(shown, known, "management") == "SERVING"
    for own in (None, stranger):
        assert refusal(partial(asked, shown, own))[0] == "UNAVAILABLE"
    context = ssl.create_default_context(cadata=shown.pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    connection = socket.create_connection(("127.0.0.1", port_of(server)), timeout=LONG)
    with context.wrap_socket(connection, server_hostname="127.0.0.1") as secure:
        assert secure.selected_alpn_protocol() == "h2"
    # A client that does not speak TLS disturbs nothing.
    with client_of(server) as plain:
        assert refusal(plain.health)[0] == "UNAVAILABLE"
    write(renewed)
    assert server.front is not None
    server.front.send_signal(signal.SIGHUP)
    server.until(lambda: "The certificate was read again" in server.log(), "the certificate to be read")
    assert asked(renewed, known) == "SERVING"
    assert refusal(lambda: asked(shown, known))[0] == "UNAVAILABLE"
    assert server.stop() == 0


def test_unix_socket_and_end(make_server: MakeServer) -> None:
    """On a UNIX socket; a server that stops answers the calls that it has, says so to others, and leaves no file."""
    # The path of a socket is short.
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as directory:
        path = Path(directory) / "g.sock"
        server = start(make_server, grpc_inference_address=f"unix:{path}", shutdown_delay=1)
        go = server.cwd / "go"
        with connected(f"unix:{path}", server.keys()["inference"]) as client:
            watched = client.watch()
            assert next(watched).status == messages.HealthCheckResponse.SERVING
            running = client.begin("m", b"until %s" % bytes(go))
            server.until(go.with_name("go.begun").exists, "the handler to begin")
            assert server.front is not None
            server.front.send_signal(signal.SIGTERM)
            assert next(watched).status == messages.HealthCheckResponse.NOT_SERVING
            # Calls are taken for the second in which clients learn that they should go elsewhere.
            outcomes = [outcome(client)]
            while outcomes[-1] == "OK" and len(outcomes) < 4000:
                outcomes.append(outcome(client))
            assert (outcomes[0], outcomes[-1]) == ("OK", "UNAVAILABLE")
            go.touch()
            assert running.result(LONG).prediction == b"in time"
        assert server.stop() == 0
        assert not path.exists()
    server.assert_clean()


def outcome(client: Client) -> str:
    """Return the code of a call that needs no worker."""
    try:
        client.unary(f"{INFERENCE}/Ping", messages.Empty(), messages.TorchServeHealthResponse, timeout=5)
    except grpc.RpcError as e:
        return str(e.code().name)
    return "OK"


@pytest.mark.parametrize("way", ["twistd", "torchserve"])
def test_other_commands(make_server: MakeServer, tmp_path: Path, way: str) -> None:
    """Under ``twistd``, and by the command of scripts for TorchServe, calls are answered, too."""
    server = make_server({"m": HANDLER})
    words = ["--ncs", "--model-store", str(server.store), "--models", "m=m"]
    if way == "twistd":
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "--nodaemon", "--pidfile=", "--reactor=asyncio", "twisted-serve", *words]
    else:
        subprocess.run([COMMAND, "shims", tmp_path], capture_output=True, timeout=LONG, check=True)
        command = [str(tmp_path / "torchserve"), "--start", "--foreground", *words]
    server.start(command=command)
    with client_of(server) as client:
        assert client.predict("m", b"echo x") == b"x"
        assert [each.prediction for each in client.stream("m", b"words a")] == [b"a", b"end"]
    assert server.stop() == (-signal.SIGTERM if way == "twistd" else 0)
    server.assert_clean()


def test_taken_port(make_server: MakeServer) -> None:
    """A port that another server has is an error with its address; nothing stays behind."""
    first = start(make_server)
    second = make_server(grpc_management_port=port_of(first, "management"))
    second.start(wait=False)
    assert second.front is not None
    assert second.front.wait(LONG) == 1
    assert "Traceback" not in second.log()
    assert f"Couldn't listen on 127.0.0.1:{port_of(first, 'management')}" in second.log()
    second.assert_clean()
    with client_of(first) as client:
        assert client.predict("m", b"echo x") == b"x"
    assert first.stop() == 0


def test_without_the_extra(make_server: MakeServer, tmp_path: Path) -> None:
    """Where h2 is not installed one line says what to install, no port is opened, and HTTP works."""
    server = make_server({"m": HANDLER})
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['h2'] = None\n")
    server.environ["PYTHONPATH"] = str(tmp_path)
    server.start("--models", "m=m")
    assert server.predict("m", b"echo x").body == b"x"
    assert "twisted-serve[grpc]" in server.log()
    assert len([line for line in server.log().splitlines() if "grpc" in line.lower()]) == 1
    listening = [each for each in psutil.Process(server.pid).net_connections() if each.status == psutil.CONN_LISTEN]
    assert len(listening) == 3
    assert server.stop() == 0
