# SPDX-License-Identifier: Apache-2.0
"""Tests for servers in an application of somebody else's: two in one process, on any reactor."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer

pytestmark = pytest.mark.integration

ECHO = "def handle(data, context):\n    return data and [bytes(row['body']) for row in data]\n"

PROGRAM = """
import json, sys
if sys.argv[1] == "asyncio":
    from twisted.internet import asyncioreactor
    asyncioreactor.install()
from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.stdio import StandardIO
from twisted.internet.protocol import Protocol
from twisted_serve.config.options import ServerOptions
from twisted_serve.service import ModelServer

class Stdin(Protocol):
    def connectionLost(self, reason):
        stopping = application.stopService()
        stopping.addCallback(lambda _: print(json.dumps({"timers": len(reactor.getDelayedCalls())}), flush=True))
        stopping.addBoth(lambda _: reactor.callLater(0.1, reactor.stop))

def server(number):
    return ModelServer(reactor, ServerOptions(
        model_store=sys.argv[2], load_models="echo=echo", default_workers_per_model=1,
        token_key_file=f"key_file_{number}.json", **{
            f"{role}_address": "http://127.0.0.1:0" for role in ("inference", "management", "metrics")}))

def tell(_):
    print(json.dumps([{role.name.lower(): address.port for role, address in each.addresses.items()}
                      for each in servers]), flush=True)

application = MultiService()
servers = [server(1), server(2)]
for each in servers:
    each.setServiceParent(application)
application.startService()
gatherResults([each.ready for each in servers]).addCallback(tell)
StandardIO(Stdin())
reactor.run()
print(json.dumps(type(reactor).__name__), flush=True)
"""


@pytest.mark.parametrize(("reactor", "name"), [("default", "EPollReactor"), ("asyncio", "AsyncioSelectorReactor")])
def test_two_servers(make_server: MakeServer, reactor: str, name: str) -> None:
    """Two servers of one application both serve, know nothing of each other's keys, and are gone when it stops."""
    server = make_server({"echo": ECHO})
    server.output.unlink()
    with server.output.open("wb") as errors:
        server.front = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, reactor, str(server.store)],
            cwd=server.cwd,
            env=server.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert server.front.stdout is not None
    both_ports = json.loads(server.front.stdout.readline())
    files = [server.cwd / "key_file_1.json", server.cwd / "key_file_2.json"]
    keys = [json.loads(file.read_text())["inference"]["key"] for file in files]
    workers = server.workers()
    assert len(workers) == 2
    assert len(server.work_dirs()) == 2
    for number, ports in enumerate(both_ports):
        server.ports = ports
        path, body = "/predictions/echo", b"hello %d" % number
        assert server.curl("inference", path, bearer=keys[number], body=body).body == body
        assert server.curl("inference", path, bearer=keys[1 - number], body=body).status == 400

    assert server.front.stdin is not None
    server.front.stdin.close()
    rest = [json.loads(line) for line in server.front.stdout]
    assert server.front.wait(40) == 0
    if sys.platform == "linux":
        assert rest == [{"timers": 0}, name]
    assert [server.alive(pid) for pid in workers] == [False, False]
    assert [file.exists() for file in files] == [False, False]
    server.assert_clean()
    assert "Traceback" not in server.log()
    assert "Unhandled" not in server.log()
