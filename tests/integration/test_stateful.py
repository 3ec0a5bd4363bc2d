# SPDX-License-Identifier: Apache-2.0
"""Tests for stateful models in real workers: sequences keep their state, and get over the death of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeServer, Server

pytestmark = pytest.mark.integration

# Adds up the numbers of each sequence; answers with its process and the sum.
HANDLER = """
import os

class Adder:
    def initialize(self, context):
        self.sums = {}

    def handle(self, data, context):
        answers = []
        for i, row in enumerate(data):
            name = context.get_sequence_id(i)
            if bytes(row["body"]) == b"die":
                os._exit(3)
            self.sums[name] = self.sums.get(name, 0) + int(bytes(row["body"]))
            context.set_response_header(i, "x-sequence", name)
            start = context.get_request_header(i, context.header_key_sequence_start)
            answers.append(f"{os.getpid()} {self.sums[name]} {start}")
        return answers
"""

MODEL = {
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 2,
    "sequenceBatching": True,
    "maxNumSequence": 4,
    "maxSequenceJobQueueSize": 5,
    "sequenceMaxIdleMSec": 0,
}


@pytest.fixture(scope="module")
def server(make_module_server: MakeServer) -> Server:
    """Start a server with two stateful workers, and a header of its own for sequences."""
    server = make_module_server(ts_header_key_sequence_id="x-my-sequence")
    server.add_model("adder", HANDLER, **MODEL)
    return server.start("--models", "adder=adder")


def add(server: Server, sequence: str, number: int) -> tuple[str, int]:
    answer = server.predict("adder", b"%d" % number, "-H", f"x-my-sequence: {sequence}")
    assert answer.status == 200, answer
    assert answer.headers["x-sequence"] == sequence
    pid, total, start = answer.body.split()
    assert start == b"None"
    return pid.decode(), int(total)


def test_state(server: Server) -> None:
    """Each sequence is added up by itself, at one worker."""
    first, second = (
        [add(server, "a", number) for number in (1, 2, 3)],
        [add(server, "b", number) for number in (10, 20)],
    )
    assert [total for _pid, total in first] == [1, 3, 6]
    assert [total for _pid, total in second] == [10, 30]
    assert len({pid for pid, _total in first}) == len({pid for pid, _total in second}) == 1


def test_nameless(server: Server) -> None:
    """A request without a sequence gets one, whose name its handler can send back; then it goes on."""
    answer = server.predict("adder", b"5")
    name = answer.headers["x-sequence"]
    assert name.startswith("ts-seq-")
    pid, total, start = answer.body.split()
    assert (total, start) == (b"5", b"true")
    assert add(server, name, 6) == (pid.decode(), 11)


def test_worker_dies(server: Server) -> None:
    """The death of a worker ends its sequences; later requests of the same name begin anew, now and after a restart."""
    pid, _total = add(server, "a", 0)
    assert server.predict("adder", b"die", "-H", "x-my-sequence: a").status == 500
    survivor, again = add(server, "a", 7)
    assert (survivor == pid, again) == (False, 7)
    server.until(lambda: len(server.workers()) == 2, "another worker")
    assert add(server, "a", 1) == (survivor, 8)


def test_too_many(server: Server) -> None:
    """More sequences than may be are refused; describe says what may be."""
    statuses = [server.predict("adder", b"1", "-H", f"x-my-sequence: many-{number}").status for number in range(5)]
    assert statuses[-1] == 503
    (described,) = server.curl("management", "/models/adder", key="management").json()
    assert (described["stateful"], described["maxNumSequence"], described["maxSequenceJobQueueSize"]) == (True, 4, 5)
