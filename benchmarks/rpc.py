# SPDX-License-Identifier: Apache-2.0
"""
Compare this server's gRPC with TorchServe's, call by call.

Both serve at the same time, and short loads by ``h2load`` alternate between them, so that what else the machine does
slows both.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.cases import Case, build_archive, case_named
from benchmarks.load import Load
from benchmarks.results import THEIRS, Called, Idle, Results
from benchmarks.servers import DidNotStartError, Peer, Running, is_worker, start
from twisted_serve.rpc.messages import PredictionsRequest

_SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"

#: How many messages the handler of the stream sends.
MESSAGES = 10

_STREAM = Case("stream", "stream of ten messages", "stream.py")


@frozen
class Call:
    """
    A call that is measured.

    :ivar size: Bytes of its input.
    :ivar shapes: Numbers of connections, each with the number of calls at a time on each of them.
    """

    name: str
    title: str
    case: Case
    path: str
    size: int
    shapes: tuple[tuple[int, int], ...]

    @property
    def messages(self) -> int:
        """The number of messages in its response."""
        return MESSAGES if self.case is _STREAM else 1

    @property
    def request(self) -> bytes:
        """The message of the request."""
        message = PredictionsRequest(model_name=self.case.name, input={"data": b"x" * self.size})
        return message.SerializeToString()


_NOOP = case_named("noop")

CALLS = (
    Call("noop", "no-op", _NOOP, f"{_SERVICE}/Predictions", 300, ((1, 1), (1, 16), (4, 16))),
    Call("stream", _STREAM.title, _STREAM, f"{_SERVICE}/StreamPredictions", 300, ((1, 16),)),
    Call("large", "150 KB", _NOOP, f"{_SERVICE}/Predictions", 150_000, ((1, 16),)),
)

_TIMES = re.compile(r"^finished in ([\d.]+)(us|ms|s), ", re.M)
_COUNTS = re.compile(r"^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded", re.M)
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def read_h2load(output: str, log: Iterable[str]) -> Load:
    """
    Read the result of ``h2load``.

    :param log: Its log: start, HTTP status and microseconds of each call.
    :raise ValueError: if there is none.
    """
    times, counts = _TIMES.search(output), _COUNTS.search(output)
    if times is None or counts is None:
        raise ValueError(f"h2load reported nothing: {output[-300:]!r}")
    latencies = sorted(int(line.split("\t")[2]) for line in log)
    p50, p99 = (latencies[int(len(latencies) * share)] / 1e3 if latencies else 0.0 for share in (0.5, 0.99))
    done, succeeded = int(counts[1]), int(counts[2])
    return Load(done, float(times[1]) * _UNITS[times[2]], p50, p99, 0, done - succeeded)


def put_load(running: Running, call: Call, connections: int, streams: int, seconds: float) -> Load:
    """
    Put a load on a server.

    :raise ValueError: if ``h2load`` failed.
    """
    body, log = running.directory / f"{call.name}.grpc", running.directory / "h2load.log"
    body.write_bytes(b"\0" + len(call.request).to_bytes(4, "big") + call.request)
    log.unlink(missing_ok=True)
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{max(1, round(seconds))}", "-d", str(body)]
    command += ["--log-file", str(log), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    # A command line is no secret, and this key lives as long as the measurement.
    command += ["-H", f"authorization: Bearer {running.keys['inference']}", f"http://{running.grpc}{call.path}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90, check=False)
    with open(log, encoding="utf-8") as lines:
        return read_h2load(run.stdout + run.stderr, lines)


def check_answer(running: Running, call: Call) -> None:
    """
    Have a real client make a call: for ``h2load`` each response is one, whatever its status in the trailers.

    :raise ValueError: if the call fails, or its messages are not as many as they should be.
    """
    import grpc

    with grpc.insecure_channel(running.grpc, [("grpc.enable_http_proxy", 0)]) as channel:
        metadata = (("authorization", f"Bearer {running.keys['inference']}"),)
        try:
            answered = channel.unary_stream(call.path)(call.request, timeout=30, metadata=metadata)
            messages = len(list(answered))
        except grpc.RpcError as e:
            raise ValueError(f"{call.title}: {e.code().name}: {e.details()}") from e
    if messages != call.messages:
        raise ValueError(f"{call.title}: {messages} messages instead of {call.messages}")


class Calls:
    """
    Measures all calls in one run.

    :param seconds: How long each load lasts.
    :param work: Where servers get their directories.
    """

    def __init__(self, results: Results, seconds: float, work: Path, say: Callable[[str], None]) -> None:
        self.results = results
        self.seconds = seconds
        self.work = work
        self.say = say

    def cover(self, found: Sequence[Peer], rounds: int) -> None:
        """Measure what has not been measured yet."""
        wanted = [
            (peer, call, shape, number)
            for number in range(1, rounds + 1)
            for call in CALLS
            for shape in call.shapes
            for peer in found
            if not self.results.has((peer.name, call.name, *shape, number))
        ]
        self._memory(found)
        if not wanted:
            return
        with ExitStack() as stack:
            servers = {peer: self._started(peer, stack) for peer in found}
            for peer, call, shape, number in wanted:
                running = servers[peer]
                if running is not None:
                    self._measure(running, call, shape, number)

    def _started(self, peer: Peer, stack: ExitStack) -> Running | None:
        """Start a server with both models, and make the calls that are measured until Java has compiled them."""
        try:
            running = start(peer, _NOOP, self.work / f"grpc-{peer.name}")
            stack.callback(running.stop)
            build_archive(_STREAM, running.directory / "store")
            running.register(_STREAM)
            for call in CALLS:
                check_answer(running, call)
                warm = 3 * self.seconds if peer.name == THEIRS else 1.0
                put_load(running, call, *call.shapes[-1], min(8.0, warm))
        except (DidNotStartError, OSError, ValueError, subprocess.TimeoutExpired) as e:
            self.say(f"{peer.name} did not serve gRPC: {type(e).__name__}: {e}")
            return None
        return running

    def _measure(self, running: Running, call: Call, shape: tuple[int, int], number: int) -> None:
        try:
            self.results.add(self._measured(running, call, shape, number))
        except (OSError, ValueError, subprocess.TimeoutExpired) as e:
            self.say(f"{running.peer.name}, gRPC: {type(e).__name__}: {e}")

    def _measured(self, running: Running, call: Call, shape: tuple[int, int], number: int) -> Called:
        connections, streams = shape
        check_answer(running, call)
        whole, front = running.group.cpu_seconds(), running.group.cpu_seconds_of(_is_front)
        load = put_load(running, call, connections, streams, self.seconds)
        front = running.group.cpu_seconds_of(_is_front) - front
        whole = running.group.cpu_seconds() - whole
        called = Called(
            running.peer.name,
            call.name,
            connections,
            streams,
            number,
            round(load.rate, 2),
            load.p50_ms,
            load.p99_ms,
            round(front / max(1, load.requests) * 1e6, 1),
            round(whole / max(1, load.requests) * 1e6, 1),
            load.clean,
        )
        self.say(
            f"gRPC     {call.name:8} {called.server:20} {connections}x{streams:<3} {called.rate:10.1f}/s"
            f"  p50 {called.p50_ms:.2f} ms  front {called.front_us:.0f} µs  all {called.cpu_us:.0f} µs"
        )
        return called

    def _memory(self, found: Iterable[Peer]) -> None:
        """Measure this server's front with gRPC and without, before any load."""
        for peer in found:
            if not peer.name.startswith("twisted_serve"):
                continue
            for enabled in ("true", "false"):
                if self.results.has((peer.name, "idle", enabled == "true")):
                    continue
                try:
                    running = start(peer, _NOOP, self.work / f"idle-{enabled}", f"enable_grpc={enabled}\n")
                except DidNotStartError as e:
                    self.say(f"{peer.name} did not start: {e}")
                    continue
                try:
                    sizes = running.settled_front()
                finally:
                    running.stop()
                self.results.add(Idle(peer.name, enabled == "true", sizes))
                self.say(f"gRPC     enabled: {enabled:8} {peer.name:20} front {sizes / 1e6:.1f} MB")


def _is_front(command: str) -> bool:
    return not is_worker(command)


def middle(results: Results, server: str, call: str, shape: tuple[int, int]) -> Called | None:
    """Return the medians of the clean rounds."""
    rows = [
        each
        for each in results.called
        if (each.server, each.call, each.connections, each.streams) == (server, call, *shape) and each.clean
    ]
    if not rows:
        return None
    names = ("rate", "p50_ms", "p99_ms", "front_us", "cpu_us")
    return Called(server, call, *shape, 0, **{name: median(getattr(row, name) for row in rows) for name in names})
