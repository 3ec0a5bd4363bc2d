# SPDX-License-Identifier: Apache-2.0
"""
Start, query, scale and stop the servers that are compared.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

from benchmarks.cases import Case, build_archive
from benchmarks.load import Load, measure
from benchmarks.processes import Group

# Seconds that a server has to give its first answer; Java and torch on a cold disk included.
START_SECONDS = 180.0

_HERE = Path(__file__).resolve().parent


# The servers with a script in `benchmarks.peers`: the path of a prediction, by kind.
SCRIPTED = {
    "litserve": "/predict",
    "mosec": "/inference",
    "fastapi": "/predict",
    "triton": "/v2/models/{case}/infer",
}

# How our server is started, after the interpreter.
_PROGRAM = ("-m", "twisted_serve.cli")


class DidNotStartError(Exception):
    """A server gave no answer in time; the text is the end of its log."""


def free_port() -> int:
    """Find a port of the loopback address that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@frozen
class Peer:
    """
    A server program.

    :ivar kind: How it is spoken to: ``torchserve`` (and so ours), ``echo``, ``limit``, or one of `SCRIPTED`.
    :ivar python: The interpreter of its virtual environment.
    :ivar tokens: Whether it asks for its key.
    :ivar flags: What follows the port on the command line of a script.
    """

    name: str
    kind: str
    python: Path
    tokens: bool = True
    flags: Sequence[str] = ()

    def takes(self, case: Case) -> bool:
        """Say whether it can do this at all: LitServe reads JSON, and no other bodies; FastAPI has no batches."""
        if self.kind == "fastapi":
            return case.batch_size == 1
        return self.kind != "litserve" or case.content_type in ("", "application/json")

    def command(self, case: Case, port: int, ours: Sequence[str] = _PROGRAM) -> list[str]:
        """
        Say how it is started in the foreground.

        :param ours: What stands between interpreter and flags if the server is ours.
        """
        if self.kind == "limit":
            return [str(self.python), str(_HERE / "limit.py"), case.name, str(port)]
        if self.kind == "echo":
            return [str(self.python), str(_HERE / "bare.py"), "echo", str(port)]
        if self.kind in SCRIPTED:
            script = _HERE / "peers" / f"{self.kind}_app.py"
            return [str(self.python), str(script), case.name, str(port), *self.flags]
        program = (
            [str(self.python), *ours]
            if self.name.startswith("twisted_serve")
            else [str(self.python.parent / "torchserve")]
        )
        words = ["--start", "--foreground", "--ncs", "--enable-model-api", "--ts-config", "config.properties"]
        words += ["--model-store", "store", "--models", f"{case.name}={case.name}.mar"]
        return [*program, *words, *([] if self.tokens else ["--disable-token-auth"])]


@define(eq=False)
class Running:
    """
    A server which has answered.

    :ivar grpc: Host and port of the gRPC of predictions.
    :ivar first_answer: Seconds from the command to the first prediction.
    :ivar body: The file with what is sent.
    """

    peer: Peer
    case: Case
    directory: Path
    group: Group
    url: str
    management: str
    metrics: str
    grpc: str
    first_answer: float = 0.0
    body: Path | None = None
    keys: dict[str, str] = field(factory=dict)

    @property
    def secret(self) -> tuple[str, str] | None:
        """Return name and value of the header that predictions need."""
        if self.peer.kind == "triton":
            head = tensors(self.case)[0]
            return ("Inference-Header-Content-Length", str(len(head))) if self._raw else None
        if self.peer.kind == "litserve":
            return ("X-API-Key", self.keys["inference"])
        return ("Authorization", f"Bearer {self.keys['inference']}") if self.keys else None

    @property
    def content(self) -> bytes:
        """Return the body of a prediction; only our server and TorchServe take one without."""
        if self.peer.kind == "triton":
            return b"".join(tensors(self.case))
        return self.case.body or (b"{}" if self.peer.kind in SCRIPTED else b"")

    @property
    def content_type(self) -> str:
        """Return what the body is said to be."""
        return "application/octet-stream" if self._raw else self.case.content_type or "application/json"

    @property
    def _raw(self) -> bool:
        """Whether bytes follow the head in JSON of Triton's protocol."""
        return self.peer.kind == "triton" and tensors(self.case)[1] != b""

    @property
    def method(self) -> str:
        """Return the method of a prediction."""
        return "POST" if self.content else "GET"

    def predict(self) -> bytes:
        """
        Ask once.

        :raise OSError: when there is no answer, or an error.
        """
        headers = {"Content-Type": self.content_type} if self.content else {}
        if self.secret is not None:
            headers[self.secret[0]] = self.secret[1]
        request = urllib.request.Request(self.url, self.content or None, headers, method=self.method)
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: bytes = response.read()
            return answer

    def scale(self, workers: int) -> float:
        """Have so many workers, and return the seconds that this took."""
        headers = {"Authorization": f"Bearer {self.keys['management']}"} if self.keys else {}
        url = f"{self.management}/models/{self.case.name}?min_worker={workers}&max_worker={workers}&synchronous=true"
        begun = time.perf_counter()
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="PUT"), timeout=180) as answer:
            answer.read()
        return time.perf_counter() - begun

    def register(self, case: Case) -> None:
        """Serve another model, whose archive is in the store."""
        headers = {"Authorization": f"Bearer {self.keys['management']}"} if self.keys else {}
        url = f"{self.management}/models?url={case.name}.mar&initial_workers=1&synchronous=true"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="POST"), timeout=180) as answer:
            answer.read()

    def settled_front(self) -> int:
        """Return the proportional set size of the front, in bytes, when the start is over."""
        time.sleep(1.0)
        return self.group.pss_of_front(is_worker)

    def batches(self) -> tuple[float, float]:
        """Return the number of requests and of batches that were sent to workers, by the metrics of our server."""
        with urllib.request.urlopen(self.metrics, timeout=30) as response:
            text: str = response.read().decode()
        found = [
            sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"ts_batch_size_{end}"))
            for end in ("sum", "count")
        ]
        return found[0], found[1]

    def load(self, connections: int, seconds: float) -> Load:
        """
        Put a load on it.

        :raise ValueError: when ``wrk`` failed.
        """
        return measure(self.url, connections, seconds, self.method, self.body, self.content_type, self.secret)

    def cost(self, connections: int, seconds: float) -> tuple[Load, float]:
        """
        Put a load on it, and return also the microseconds of all its processes for each request.

        :raise ValueError: when ``wrk`` failed.
        """
        before = self.group.cpu_seconds()
        load = self.load(connections, seconds)
        return load, (self.group.cpu_seconds() - before) / max(1, load.requests) * 1e6

    def stop(self) -> None:
        """End it and all that it has started."""
        self.group.end()


def start(peer: Peer, case: Case, directory: Path, properties: str = "", ours: Sequence[str] = _PROGRAM) -> Running:
    """
    Start a server in an empty directory and wait for its first answer.

    :param properties: Further lines of its configuration.
    :param ours: What stands between interpreter and flags if the server is ours.

    :raise DidNotStartError: when there is none; nothing is left running then.
    """
    directory.mkdir(parents=True)
    store, temporary = directory / "store", directory / "tmp"
    store.mkdir()
    temporary.mkdir()
    port, management, metrics, calls, changes = (free_port() for _ in range(5))
    build_archive(case, store)
    (directory / "config.properties").write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\njob_queue_size=1000\n"
        f"grpc_inference_port={calls}\ngrpc_management_port={changes}\n"
        f"disable_system_metrics=true\n{properties}"
    )
    log = directory / "log"
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PATH": f"{peer.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": "1",
        "LIT_SERVER_API_KEY": "0123456789abcdef" * 2,
    }
    environment.pop("PYTHONPATH", None)
    path = SCRIPTED.get(peer.kind, "/predictions/{case}" if peer.kind == "torchserve" else "/predict")
    with open(log, "wb") as output:
        began = time.perf_counter()
        leader = subprocess.Popen(
            peer.command(case, port, ours),
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Running(
        peer,
        case,
        directory,
        Group(leader),
        f"http://127.0.0.1:{port}{path.format(case=case.name)}",
        f"http://127.0.0.1:{management}",
        f"http://127.0.0.1:{metrics}/metrics",
        f"127.0.0.1:{calls}",
    )
    if running.content:
        running.body = directory / "body"
        running.body.write_bytes(running.content)
    if peer.kind == "litserve":
        running.keys = {"inference": environment["LIT_SERVER_API_KEY"]}
    try:
        _wait(running, began)
    except BaseException:
        running.stop()
        raise
    return running


def _wait(running: Running, began: float) -> None:
    while time.perf_counter() < began + START_SECONDS:
        if running.group.leader.poll() is not None:
            break
        with suppress(OSError, ValueError, KeyError):
            if running.peer.kind == "torchserve" and running.peer.tokens:
                written = json.loads((running.directory / "key_file.json").read_text())
                running.keys = {kind: member["key"] for kind, member in written.items()}
            running.predict()
            running.first_answer = time.perf_counter() - began
            return
        time.sleep(0.02)
    raise DidNotStartError((running.directory / "log").read_bytes()[-2000:].decode("utf-8", "replace"))


def tensors(case: Case) -> tuple[bytes, bytes]:
    """Return a case's body in Triton's protocol: the head, which is JSON, and the bytes after it, if there are any."""
    body = case.body or b"{}"
    if case.content_type in ("", "application/json"):
        values = json.loads(body) if case.body else list(body)
        shape, kind = [1, len(values)], "FP32" if case.body else "UINT8"
        return json.dumps(
            {"inputs": [{"name": "body", "datatype": kind, "shape": shape, "data": values}]}
        ).encode(), b""
    sizes = {"binary_data_size": len(body)}
    head = {"inputs": [{"name": "body", "datatype": "UINT8", "shape": [1, len(body)], "parameters": sizes}]}
    return json.dumps(head).encode(), body


def is_worker(command: str) -> bool:
    """Say of a command line whether it is a worker's, ours or the predecessor's."""
    return "model_service_worker" in command or "twisted_serve.backend" in command


def peers(ours: Path, environments: Path, say: Callable[[str], None]) -> list[Peer]:
    """
    List the servers which can be compared here; of what is missing, say so.

    :param environments: The directory with an environment for each other server, by its name in lower case.
    """
    found = [Peer("twisted_serve", "torchserve", ours)]
    for name, kind, flags in OTHERS:
        python = environments / kind / "bin" / "python"
        # What make leaves when everything is installed.
        if not (environments / kind / ".made").exists():
            say(f"{name} is not installed in its environment: it is left out.")
        elif kind == "torchserve" and shutil.which("java") is None:
            say("There is no Java: TorchServe is left out.")
        else:
            found.append(Peer(name, kind, python, flags=flags))
    return found


#: The other servers: names, kinds, and flags of their scripts.
OTHERS = (
    ("TorchServe", "torchserve", ()),
    ("LitServe", "litserve", ()),
    ("Mosec", "mosec", ()),
    ("Triton", "triton", ()),
    ("FastAPI", "fastapi", ()),
    ("FastAPI, log off", "fastapi", ("quiet",)),
)

#: Our own interpreter.
OURS = Path(sys.executable)
