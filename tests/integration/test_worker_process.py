# SPDX-License-Identifier: Apache-2.0
"""
Tests for worker processes that are real: a pool, `LocalProvider`, a reactor, and children that serve a handler.

Each test runs a short program in a process of its own, since a reactor runs once
and children are reaped by the main thread.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import twisted_serve

pytestmark = pytest.mark.integration

HANDLER = """
import os, signal, subprocess, time

def handle(data, context):
    answers = []
    for row in data or []:
        word = bytes(row["body"]).decode()
        print("asked to", word)
        if word == "raise":
            raise ValueError("no")
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "kill once" and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "exit":
            os._exit(3)
        if word == "hang":
            time.sleep(3600)
        if word == "slow":
            time.sleep(0.7)
        if word == "spawn":
            subprocess.Popen(["sleep", "8"], close_fds=False)
        if word == "print":
            os.write(1, b"x" * 5_000_000)
        answers.append(f"{word} {os.getpid()} {os.getcwd()}")
    return answers
"""

PROGRAM = """
import json, os, sys
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.logger import Logger
from tests.specs import worker_spec
from twisted_serve.errors import ServeError
from twisted_serve.models.version import ModelSettings
from twisted_serve.wire.messages import Job, Part
from twisted_serve.workers.local import LocalProvider
from twisted_serve.scheduling.pool import Pool

lines, ids, requests = [], count(9000), count()

def tell(**facts):
    print(json.dumps(facts), flush=True)

def make(reactor, **settings):
    environment = {name: os.environ[name] for name in os.environ if name.startswith(("PATH", "COVERAGE"))}
    log = Logger(observer=lambda event: lines.append(event["line"]))
    provider = LocalProvider(reactor, log, template_environment=environment if sys.argv[2] == "fork" else None)
    model_dir = Path(sys.argv[1])
    spec = worker_spec("m", "1.0", model_dir, "h.py", 1, {}, {}, sys.executable, environment, 60.0)
    settings = ModelSettings(max_workers=4, **settings)
    now = lambda: datetime.now(timezone.utc)
    return provider, Pool(spec, settings, provider, reactor, now, worker_ids=lambda: str(next(ids)))

async def ask(pool, word):
    try:
        item = await pool.submit(Job(str(next(requests)), {}, [Part("body", "", word.encode())]))
    except ServeError as e:
        return [e.status, e.message]
    return [item.status, item.body.decode()]

async def end(provider, pool, reactor, grace=10.0):
    await pool.retire(grace)
    await provider.stop()
    await deferLater(reactor, 0)
    try:
        os.waitpid(-1, os.WNOHANG)
        orphans = True
    except ChildProcessError:
        orphans = False
    sockets = [fd for fd in os.listdir("/proc/self/fd") if fd_is_ours(fd)]
    tell(orphans=orphans, timers=len(reactor.getDelayedCalls()), descriptors=len(sockets) - before)

def fd_is_ours(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(("socket:", "pipe:", "/dev/null"))
    except OSError:
        return False

async def main(reactor):
    global before
    await deferLater(reactor, 0)  # the reactor's own descriptors are there then
    before = len([fd for fd in os.listdir("/proc/self/fd") if fd_is_ours(fd)])
    provider, pool = make(reactor, **SETTINGS)
BODY

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


def program(body: str, **settings: Any) -> str:
    """Make the program whose ``main`` does ``body``."""
    indented = "\n".join("    " + line for line in dedent(body).strip().splitlines())
    return PROGRAM.replace("SETTINGS", repr(settings)).replace("BODY", indented)


def start(model_dir: Path, text: str, way: str) -> subprocess.Popen[str]:
    """Run a program."""
    root = str(Path(twisted_serve.__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", text, str(model_dir), way],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(model_dir: Path, text: str, way: str) -> dict[str, Any]:
    """Run a program to its end, and give all that it told."""
    with start(model_dir, text, way) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, out
    facts: dict[str, Any] = {}
    for line in out.splitlines():
        facts.update(json.loads(line))
    return facts


def alive(pid: int) -> bool:
    """Say whether a process is there, and not only its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.fixture(params=["spawn", "fork"])
def way(request: pytest.FixtureRequest) -> str:
    """Give a way in which workers begin: what they do, and how they end, is the same."""
    return str(request.param)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Give a model's directory with the handler in it."""
    (tmp_path / "h.py").write_text(HANDLER)
    return tmp_path


def assert_clean(told: dict[str, Any]) -> None:
    """See that a program left no process, timer or descriptor behind."""
    assert (told["orphans"], told["timers"], told["descriptors"]) == (False, 0, 0)


def test_predictions(model_dir: Path, way: str) -> None:
    """Workers answer, in their model's directory; a handler's exception is an answer; nothing is left at the end."""
    told = run(
        model_dir,
        program(
            """
            await pool.start()
            tell(good=await ask(pool, "hello"), bad=await ask(pool, "raise"), again=await ask(pool, "hello"))
            await end(provider, pool, reactor)
            # Only now: what a worker prints comes another way than what it answers, and may come later.
            tell(lines=[line for line in lines if line.startswith("asked")])
            """
        ),
        way,
    )
    status, body = told["good"]
    assert (status, body.split()[0], body.split()[2]) == (200, "hello", str(model_dir))
    assert told["bad"] == [503, "Prediction failed"]
    assert told["again"] == told["good"]
    assert told["lines"] == ["asked to hello", "asked to raise", "asked to hello"]
    assert_clean(told)


def test_replaced(model_dir: Path, way: str) -> None:
    """A worker that is killed, exits or hangs is replaced; its clients are told."""
    told = run(
        model_dir,
        program(
            """
            await pool.start()
            tell(**{word: await ask(pool, word) for word in ("one", "kill", "two", "exit", "three", "hang", "four")})
            await end(provider, pool, reactor)
            """,
            response_timeout=1,
        ),
        way,
    )
    assert (told["kill"], told["exit"], told["hang"]) == (
        [507, "Worker died."],
        [500, "Worker died."],
        [500, "Worker died."],
    )
    pids = {told[word][1].split()[1] for word in ("one", "two", "three", "four")}
    assert len(pids) == 4
    assert_clean(told)


def test_tried_again(model_dir: Path, way: str) -> None:
    """What a killed worker had is answered by the next; what kills that one, too, is not let near a third."""
    told = run(
        model_dir,
        program(
            """
            await pool.start()
            tell(**{word: await ask(pool, word) for word in ("kill once", "kill")})
            tell(again=await ask(pool, "kill"), other=await ask(pool, "one"))
            await end(provider, pool, reactor)
            """
        ),
        way,
    )
    assert (told["kill once"][0], told["kill"]) == (200, [507, "Worker died."])
    assert told["again"][0] == 503
    assert told["again"][1].startswith("This request has killed 2 workers; it is not tried again for ")
    assert told["other"][0] == 200
    assert_clean(told)


def test_from_nothing_to_nothing(model_dir: Path, way: str) -> None:
    """Where there may be no worker, the first request brings one, and it goes when it has rested."""
    told = run(
        model_dir,
        program(
            """
            at_first = len(pool.status().workers)
            answer = await ask(pool, "one")
            while pool.status().workers:
                await deferLater(reactor, 0.05)
            tell(at_first=at_first, answer=answer, ready=pool.ready(), again=await ask(pool, "two"))
            await end(provider, pool, reactor)
            """,
            min_workers=0,
            scale_idle_time=0.5,
        ),
        way,
    )
    assert (told["at_first"], told["answer"][0], told["ready"], told["again"][0]) == (0, 200, True, 200)
    assert told["answer"][1].split()[1] != told["again"][1].split()[1]
    assert_clean(told)


def test_drains(model_dir: Path, way: str) -> None:
    """A worker finishes what it has when the model goes; one that does not is terminated."""
    body = """
        await pool.start()
        answer = Deferred.fromCoroutine(ask(pool, WORD))
        await end(provider, pool, reactor, grace=GRACE)
        tell(answer=await answer)
        """
    told = run(model_dir, program(body.replace("WORD", "'slow'").replace("GRACE", "30")), way)
    assert told["answer"][0] == 200
    assert_clean(told)
    told = run(model_dir, program(body.replace("WORD", "'hang'").replace("GRACE", "0.5")), way)
    assert told["answer"] == [500, "Worker died."]
    assert_clean(told)


def test_syntax_error(model_dir: Path, way: str) -> None:
    """A handler that cannot be loaded fails the start with the reason."""
    (model_dir / "h.py").write_text("def handle(data, context)\n    return data\n")
    told = run(
        model_dir,
        program(
            """
            try:
                await pool.start()
            except ServeError as e:
                tell(status=e.status, message=e.message)
            await end(provider, pool, reactor)
            """
        ),
        way,
    )
    assert told["status"] == 500
    assert "SyntaxError" in told["message"]
    assert_clean(told)


def test_no_such_interpreter(model_dir: Path, way: str) -> None:
    """An interpreter that is not there fails the start, too."""
    told = run(
        model_dir,
        program(
            """
            sys.executable = "/nonexistent/python"
            provider, pool = make(reactor)
            try:
                await pool.start()
            except ServeError as e:
                tell(message=e.message)
            await end(provider, pool, reactor)
            """
        ),
        way,
    )
    assert "/nonexistent/python" in told["message"]
    assert_clean(told)


def test_grandchild(model_dir: Path, way: str) -> None:
    """A program that a handler started, and that holds the worker's output open, keeps nobody waiting."""
    told = run(
        model_dir,
        program(
            """
            await pool.start()
            tell(spawn=await ask(pool, "spawn"))
            began = reactor.seconds()
            await end(provider, pool, reactor)
            tell(seconds=reactor.seconds() - began)
            """
        ),
        way,
    )
    assert told["spawn"][0] == 200
    assert told["seconds"] < 7
    assert_clean(told)


def test_endless_output(model_dir: Path, way: str) -> None:
    """A handler that prints megabytes without an end of line fills neither our memory nor the pipe."""
    told = run(
        model_dir,
        program(
            """
            await pool.start()
            tell(answer=await ask(pool, "print"))
            await end(provider, pool, reactor)
            tell(longest=max(map(len, lines)))
            """
        ),
        way,
    )
    assert told["answer"][0] == 200
    assert told["longest"] < 20_000


@pytest.mark.parametrize("word", ["hello", "hang"])
def test_no_orphans(model_dir: Path, way: str, word: str) -> None:
    """Workers, busy ones too, die with a server that is killed."""
    body = f"""
        await pool.start()
        Deferred.fromCoroutine(ask(pool, {word!r}))
        await deferLater(reactor, 0.3)
        tell(pids=[worker.pid for worker in pool.status().workers])
        await Deferred()
        """
    with start(model_dir, program(body, min_workers=2), way) as process:
        try:
            assert process.stdout is not None
            pids = json.loads(process.stdout.readline())["pids"]
            assert [alive(pid) for pid in pids] == [True, True]
        finally:
            process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [alive(pid) for pid in pids] == [False, False]
