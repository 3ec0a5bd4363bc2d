# SPDX-License-Identifier: Apache-2.0
"""Tests for an application with its own TLS site, its own handlers, and calls in its process, with real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import LONG

pytestmark = pytest.mark.integration

HANDLERS = """
import os, time
from ts.handler_utils.utils import send_intermediate_predict_response as send

class Echo:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [bytes(row["body"]) for row in data]

def flood(data, context):
    if data is None:
        return None
    for number in range(64):
        send([b"x" * 999_999], context.request_ids, "", 200, context)
        with open(os.environ["NOTE"], "a") as note:
            note.write("sent ")
    return ["end"]

def broken(data, context):
    raise ValueError("not today")
"""

PROGRAM = """
import json, os, sys, time
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater, react
from twisted.web.resource import EncodingResourceWrapper
from twisted.web.server import GzipEncoderFactory, Site
from twisted.internet.utils import getProcessOutput
from twisted_serve import ModelServer, Role, ServerOptions, errors

said = {}

async def failure(deferred):
    try:
        await deferred
    except errors.ServeError as error:
        return [type(error).__name__, error.reason]

async def curl(port, path, key, *words):
    command = [*words, "-ks", "--compressed", "-i", "-H", f"Authorization: Bearer {key}",
               f"https://127.0.0.1:{port}{path}", "-d", "a" * 2000, "-H", "Content-Type: application/octet-stream"]
    return (await getProcessOutput("curl", command, os.environ)).decode()

async def main(reactor):
    server = ModelServer(reactor, ServerOptions(max_response_size=1000000), listen=False)
    early = await failure(server.predict("echo"))
    server.startService()
    said["early"] = early
    said["registered"] = str(await server.register(name="echo", handler="handlers.own:Echo"))
    said["unimportable"] = await failure(server.register(name="b", handler="nowhere.own:Echo"))
    said["broken"] = await failure(server.register(name="b", handler="handlers.own:broken"))
    said["models"] = await server.models()
    app = Klein()
    app.route("/ml/", branch=True)(lambda request: server.resource(Role.INFERENCE | Role.MANAGEMENT))
    app.route("/own")(lambda request: b"own")
    site = Site(EncodingResourceWrapper(app.resource(), [GzipEncoderFactory()]))
    port = await serverFromString(reactor, "ssl:0:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem").listen(site)
    number = port.getHost().port
    said["own"] = await curl(number, "/own", "x")
    said["answer"] = await curl(number, "/ml/predictions/echo", server.keys.inference.secret)
    said["refused"] = await curl(number, "/ml/predictions/echo", server.keys.management.secret)
    said["managed"] = await curl(number, "/ml/models", server.keys.management.secret, "-XGET")

    await server.register(name="flood", handler="handlers.own:flood")
    stream = server.stream("flood", b"")
    size = len(await stream.__anext__())
    await deferLater(reactor, 1.5)
    said["held back"] = open(os.environ["NOTE"]).read().count("sent")
    async for part in stream:
        size += len(part)
    said["streamed"] = size
    left = server.stream("flood", b"")
    await left.head()
    left.cancel()
    said["in process"] = (await server.predict("echo", b"mine")).body.decode()
    await port.stopListening()
    await server.stopService()
    said["late"] = await failure(server.predict("echo"))
    said["left"] = sorted(os.listdir(os.environ["TMPDIR"]))
    said["key file"] = os.path.exists("key_file.json")
    print(json.dumps(said))

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


def test_application(tmp_path: Path) -> None:
    """One application does all of it; its handlers are found beside it, and nothing is left."""
    package = tmp_path / "handlers"
    package.mkdir()
    (package / "own.py").write_text(HANDLERS)
    (tmp_path / "program.py").write_text(PROGRAM)
    certify = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=x"
    subprocess.run(certify.split(), cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "tmp").mkdir()
    environ = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "NOTE": str(tmp_path / "note")}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["early"] == said["late"] == ["ServerNotRunning", None]
    assert said["registered"] == "Registered(name='echo', version='1.0')"
    assert said["unimportable"][0] == said["broken"][0] == "WorkerFailed"
    assert "nowhere" in said["unimportable"][1]
    assert "not today" in said["broken"][1]
    assert said["models"] == {"echo": ["1.0"]}
    assert said["own"].endswith("own")
    assert "Content-Encoding: gzip" in said["answer"]
    assert said["answer"].endswith("a" * 2000)
    assert said["refused"].startswith("HTTP/1.1 400 ")
    assert '"modelUrl": "python:handlers.own:Echo"' in said["managed"]
    # The worker's socket and this process hold a few parts; the handler waits with the rest.
    assert 1 <= said["held back"] < 32
    assert said["streamed"] == 64 * 999_999 + len("end")
    assert said["in process"] == "mine"
    assert (said["left"], said["key file"]) == ([], False)
