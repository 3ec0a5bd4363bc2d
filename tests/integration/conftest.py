# SPDX-License-Identifier: Apache-2.0
"""
What the integration tests share: servers that are real, each in directories of its own, and gone after its tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from tests.integration.answer import Answer, read_answer
from tests.integration.key_search import KeyWatch
from twisted_serve.backend.template.after_load import TEMPLATE_NAME
from twisted_serve.eventloop.turns import SLOW_TURN

COMMAND = Path(sys.executable).with_name("twisted-serve")

STARTED = "Model server started."

# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 40.0

_MEASURING = re.compile(
    r"^.*Traceback \(most recent call last\):\n(?:(?!.*Traceback).*\n)*?.*coverage\.exceptions\..*\n", re.MULTILINE
)
_BOUND = re.compile(r"(Inference|Management|Metrics) API bind to: http://127\.0\.0\.1:(\d+)$", re.MULTILINE)

# How many processes of each server read and write its connections, unless a test says so; 0 for the server's own.
FRONTS = int(os.environ.get("TWISTED_SERVE_FRONTS", "0"))

# What a turn of the reactor may take of the processor, in milliseconds; coverage takes most of it where it measures.
TURN_LIMIT_MS = 500 if "COVERAGE_PROCESS_CONFIG" in os.environ else 50

# A model that answers what it was asked, as bytes.
ECHO = """
def handle(data, context):
    if data is not None:
        return [bytes(row.get("body") or b"") for row in data]
"""


class Server:
    """
    The installed command in a place of its own: working directory, temporary directory, model store.

    :ivar front: The server's process, when it is our child.
    :ivar ports: Where it listens: ``inference``, ``management``, ``metrics``.
    :ivar output: What it has printed, all runs together.
    :ivar key_watch: Whenever it has ended, none of its keys may be in a file that it has written.
    """

    def __init__(self, place: Path) -> None:
        self.cwd, self.temp, self.store = place / "cwd", place / "tmp", place / "store"
        for directory in (self.cwd, self.temp, self.store):
            directory.mkdir()
        self.output = place / "output"
        self.output.touch()
        self.key_watch = KeyWatch(self.cwd)
        self.environ = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        self.environ["TMPDIR"] = str(self.temp)
        self.front: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        self._begun = 0
        self._answers = count(1)
        self.configure()

    # What it is to serve, and how

    def configure(self, **properties: object) -> None:
        """Write ``config.properties``: free ports, one worker for each model, and ``properties``."""
        free = {f"{role}_address": "http://127.0.0.1:0" for role in ("inference", "management", "metrics")}
        free |= {f"grpc_{role}_port": "0" for role in ("inference", "management")}
        lane = {"fast_lane": "false"} if os.environ.get("TWISTED_SERVE_FAST_LANE") == "off" else {}
        fronts = {"front_processes": FRONTS} if FRONTS else {}
        lines = {
            **free,
            **lane,
            **fronts,
            "default_workers_per_model": 1,
            "debug_turn_limit_ms": TURN_LIMIT_MS,
            **properties,
        }
        (self.cwd / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    def add_model(self, name: str, source: str = ECHO, **config: object) -> None:
        """Put a model in the store, as a directory; ``config`` is for ``model-config.yaml``."""
        model = self.store / name
        for path, content in _model_files(name, source, config).items():
            (model / path).parent.mkdir(parents=True, exist_ok=True)
            (model / path).write_text(content)

    def add_archive(self, name: str, source: str = ECHO, version: str = "1.0") -> str:
        """Put a model in the store, as an archive, and return the archive's name."""
        archive = f"{name}-{version}.mar"
        with zipfile.ZipFile(self.store / archive, "w") as content:
            for path, text in _model_files(name, source, {}, version).items():
                content.writestr(path, text)
        return archive

    # Its life

    def command(self, *words: str) -> list[str]:
        return [str(COMMAND), *words, "--ncs", "--model-store", str(self.store)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command with these words and no others, to its end."""
        return subprocess.run(
            [str(COMMAND), *words],
            cwd=self.cwd,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )

    def start(
        self,
        *words: str,
        wait: bool = True,
        command: list[str] | None = None,
        new_session: bool = False,
        descriptors: Collection[int] = (),
    ) -> Server:
        """
        Start the server as our child, in the foreground.

        :param command: What to run instead.
        :param descriptors: Those of ours that it gets, too.
        """
        self._begun = len(self.log())
        with self.output.open("ab") as output:
            self.front = subprocess.Popen(
                command or self.command("--start", "--foreground", *words),
                cwd=self.cwd,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=new_session,
                pass_fds=descriptors,
            )
        if wait:
            self.wait_until_started()
        return self

    def start_in_background(self, *words: str) -> int:
        """Start the server as its users do, and return the command's exit status."""
        self._begun = len(self.log())
        with self.output.open("ab") as output:
            return subprocess.run(
                self.command("--start", *words),
                cwd=self.cwd,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LONG,
                check=False,
            ).returncode

    def wait_until_started(self) -> None:
        """Wait for the line that says so, and learn the ports."""

        def started() -> bool:
            ended = self.front is not None and self.front.poll() is not None
            assert not ended, f"the server ended: {self.log()}"
            return STARTED in self.log()[self._begun :]

        self.until(started, "the server to start")
        if FRONTS and self.front is not None:
            self.until(lambda: all(map(_polls, self.fronts())), "its fronts to start")
        self.learn_ports()

    def learn_ports(self) -> None:
        """Read in the log where the server listens."""
        self.ports = {role.lower(): int(port) for role, port in _BOUND.findall(self.log()[self._begun :])}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the server, which is our child, with a signal, and return its exit status."""
        assert self.front is not None
        self.key_watch.note()
        self.front.send_signal(number)
        status = self.front.wait(LONG)
        self.assert_no_key()
        return status

    @property
    def pid(self) -> int:
        """The server's process: our child, or the one that the pid file names."""
        if self.front is not None:
            return self.front.pid
        return int(self.pid_file.read_text())

    def processes(self, template: bool) -> list[int]:
        """Return the processes that the server has started, directly or not: templates, or all others but fronts."""
        found = []
        for child in psutil.Process(self.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if (child.name() == TEMPLATE_NAME) is template and not _is_front(child):
                    found.append(child.pid)
        return found

    def fronts(self) -> list[int]:
        """Return the processes that read and write connections for the server, in the order of their start."""
        found = []
        for child in psutil.Process(self.pid).children():
            with suppress(psutil.NoSuchProcess):
                if _is_front(child):
                    found.append(child.pid)
        return sorted(found)

    def workers(self) -> list[int]:
        """Return the workers' processes."""
        return self.processes(template=False)

    def templates(self) -> list[int]:
        """Return the processes that workers are forked from."""
        return self.processes(template=True)

    def bases(self) -> list[int]:
        """Return the processes that other templates are forked from."""
        children = {child.pid for child in psutil.Process(self.pid).children()}
        return [pid for pid in self.templates() if pid in children]

    def kill(self) -> None:
        """Leave no process of this server, whatever state it is in."""
        self.key_watch.note()
        with suppress(OSError, ValueError, psutil.Error):
            front = psutil.Process(self.pid)
            # A number in a file is killed only if it is the process that we mean.
            # Its environment is protected; it runs where it writes its key file.
            if self.front is not None or str(self.store) in front.cmdline():
                for process in [front, *front.children(recursive=True)]:
                    process.kill()
        if self.front is not None:
            self.front.kill()
            self.front.wait(LONG)

    # What it leaves

    def log(self) -> str:
        """Read what it printed, less what coverage says in a worker that is ended while coverage writes its file."""
        return _MEASURING.sub("", self.output.read_text(errors="replace"))

    @property
    def key_file(self) -> Path:
        return self.cwd / "key_file.json"

    @property
    def pid_file(self) -> Path:
        return self.temp / ".model_server.pid"

    def work_dirs(self) -> list[Path]:
        return list(self.temp.glob("twisted_serve-*"))

    def keys(self) -> dict[str, str]:
        """Return the keys by kind: ``management``, ``inference``, ``API``."""
        self.key_watch.note()
        return {kind: members["key"] for kind, members in json.loads(self.key_file.read_text()).items()}

    def assert_clean(self) -> None:
        """See that the server has left no file behind."""
        found = [path for path in (self.key_file, self.pid_file, *self.work_dirs()) if path.exists()]
        assert found == []

    def assert_no_key(self) -> None:
        """See that none of its keys is in a file; in the failure there is none either."""
        found = self.key_watch.found([self.cwd, self.temp, self.store, self.output])
        if found:
            pytest.fail(f"a key is in {', '.join(map(str, found))}", pytrace=False)

    def slow_turns(self, since: int = 0) -> list[str]:
        """Return what the log says, from a position on, of turns of the reactor that took too long."""
        pieces = self.log()[since:].split(SLOW_TURN)[1:]
        return [SLOW_TURN + piece[:2000] for piece in pieces]

    # Talking to it

    def curl(
        self,
        role: str,
        path: str,
        *options: str,
        key: str | None = None,
        bearer: str | None = None,
        body: bytes | None = None,
        fails: bool = False,
    ) -> Answer:
        """
        Ask with ``curl``.

        :param key: The kind of the live key to show.
        :param bearer: Another key to show.
        :param fails: Whether ``curl`` may find something wrong with the connection.
        """
        number = next(self._answers)
        head, content = self.output.with_name(f"head-{number}"), self.output.with_name(f"body-{number}")
        bearer = self.keys()[key] if key is not None else bearer
        words = ["-sS", "--noproxy", "*", "--max-time", str(LONG), "-D", str(head), "-o", str(content), *options]
        if bearer is not None:
            words += ["-H", f"Authorization: Bearer {bearer}"]
        if body is not None:
            # Without a type curl would call it a form.
            words += ["--data-binary", "@-", "-H", "Content-Type: application/octet-stream"]
        done = subprocess.run(
            ["curl", *words, f"http://127.0.0.1:{self.ports[role]}{path}"],
            input=body,
            capture_output=True,
            timeout=2 * LONG,
            check=False,
        )
        # It may have been asked for a new key.
        self.key_watch.note()
        assert fails or done.returncode == 0, done.stderr
        return read_answer(head.read_bytes(), content.read_bytes() if content.exists() else b"")

    def predict(self, model: str, body: bytes = b"", *options: str) -> Answer:
        """Have a model answer."""
        return self.curl("inference", f"/predictions/{model}", *options, key="inference", body=body)

    def connect(self, role: str = "inference") -> socket.socket:
        """Open a connection of our own; the caller closes it."""
        connection = socket.create_connection(("127.0.0.1", self.ports[role]), timeout=LONG)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def head(self, method: str, path: str, *lines: str, key: str | None = "inference") -> bytes:
        """Write a request's head."""
        bearer = [] if key is None else [f"Authorization: Bearer {self.keys()[key]}"]
        return "".join(f"{line}\r\n" for line in [f"{method} {path} HTTP/1.1", "Host: h", *bearer, *lines, ""]).encode()

    def ask(self, model: str, text: str, version: str = "HTTP/1.1") -> socket.socket:
        """Send a request to a model and read nothing; the caller closes the connection."""
        client = self.connect()
        head = self.head("POST", f"/predictions/{model}", f"Content-Length: {len(text)}")
        client.sendall(head.replace(b"HTTP/1.1", version.encode()) + text.encode())
        return client

    @staticmethod
    def read_until(client: socket.socket, end: bytes, so_far: bytes = b"") -> bytes:
        """Read until something has come, and return all that has."""
        while end not in so_far:
            data = client.recv(65536)
            assert data, so_far
            so_far += data
        return so_far

    # Waiting

    @staticmethod
    def until(condition: Callable[[], bool], what: str, seconds: float = LONG) -> float:
        """Wait for a condition, and return how long it took; fail if it takes too long."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, f"waited {seconds} s for {what}"
            time.sleep(0.02)
        return time.monotonic() - began

    @staticmethod
    def alive(pid: int) -> bool:
        """Return whether a process is there, and not only its remains."""
        try:
            return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def _is_front(process: psutil.Process) -> bool:
    return any("twisted_serve.fronts" in word for word in process.cmdline())


def _polls(pid: int) -> bool:
    """Return whether a process has a reactor."""
    with suppress(OSError):
        return any("eventpoll" in os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False


class MakeServer(Protocol):
    """Makes a server, not yet started, with models given as source by name."""

    def __call__(self, models: Mapping[str, str] | None = None, **properties: object) -> Server:
        """Configure it with ``properties``."""


def _is_foreign(name: str) -> bool:
    """Say whether a variable of ours would have a say in a server's settings or a client's ways."""
    return (
        name.startswith("TS_")
        or name in {"TEMP", "TMP", "PYTHONPATH", "XDG_RUNTIME_DIR"}
        or name.lower().endswith("_proxy")
    )


def _model_files(name: str, source: str, config: Mapping[str, object], version: str = "1.0") -> dict[str, str]:
    model = {"modelName": name, "modelVersion": version, "handler": "handler.py"}
    manifest: dict[str, Any] = {"runtime": "python", "model": model}
    files = {"handler.py": source}
    if config:
        model["configFile"] = "model-config.yaml"
        # JSON is YAML.
        files["model-config.yaml"] = json.dumps(config)
    files["MAR-INF/MANIFEST.json"] = json.dumps(manifest)
    return files


def _servers(make_place: Callable[[], Path]) -> Iterator[MakeServer]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    servers: list[Server] = []

    def make(models: Mapping[str, str] | None = None, **properties: object) -> Server:
        server = Server(make_place())
        servers.append(server)
        for name, source in (models or {}).items():
            server.add_model(name, source)
        server.configure(**properties)
        return server

    yield make
    for server in servers:
        server.kill()
    for server in servers:
        server.assert_no_key()
        slow = server.slow_turns()
        assert not slow, slow[0]


@pytest.fixture
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServer]:
    """Make servers for one test."""
    yield from _servers(lambda: tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def make_module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServer]:
    """Make servers for all tests of a module."""
    yield from _servers(lambda: tmp_path_factory.mktemp("server"))
