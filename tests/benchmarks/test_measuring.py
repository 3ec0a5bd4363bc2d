# SPDX-License-Identifier: Apache-2.0
"""Tests for how the benchmarks measure: what is read of ``wrk`` and of the system, and what is served."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import binary, lists

from benchmarks.bare import handler_of, loop
from benchmarks.cases import CASES, HANDLERS, build_archive, case_named
from benchmarks.compare import Ratio, Spent, described, ratio
from benchmarks.limit import bodies_in, frame
from benchmarks.load import Load, read_load
from benchmarks.peers import served
from benchmarks.processes import Group, pss_in, ticks_in
from benchmarks.rpc import CALLS, Call, read_h2load
from benchmarks.run import can_call
from benchmarks.servers import OTHERS, SCRIPTED, Peer, tensors
from benchmarks.soak import MORE_DELAYED, MORE_MEMORY, Look

ROOT = Path(__file__).resolve().parents[2]


def test_reading_a_load() -> None:
    """Of what ``wrk`` prints, the line of our script counts."""
    said: dict[str, Any] = {"requests": 500, "seconds": 2.0, "p50_ms": 1.5, "p99_ms": 9.0, "refused": 0, "broken": 0}
    load = read_load(f"Running 2s test\n  1 threads\n\nBENCH {json.dumps(said)}\n")
    assert load == Load(**said)
    assert (load.rate, load.clean) == (250.0, True)


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:1 Connection refused\n", "BENCHMARK 1\n"])
def test_no_load(output: str) -> None:
    """Where our line is missing, nothing is made up."""
    with pytest.raises(ValueError, match="wrk reported nothing"):
        read_load(output)


def test_errors_spoil_a_load() -> None:
    """A server that refuses quickly is not a quick server."""
    assert Load(1000, 1.0, 1.0, 1.0, 1, 0).clean
    assert not Load(1000, 1.0, 1.0, 1.0, 1, 1).clean
    assert not Load(1000, 1.0, 1.0, 1.0, 1000, 0).clean
    assert not Load(0, 1.0, 0.0, 0.0, 0, 0).clean
    assert Load(0, 0.0, 0.0, 0.0, 0, 0).rate == 0.0


def test_reading_processes() -> None:
    """A process' name may look like anything."""
    stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 1 0 1 1 1"
    assert ticks_in(stat) == 300
    assert pss_in("00400000-7ff [rollup]\nRss:  900 kB\nPss:  120 kB\nPss_Anon: 3 kB\n") == 120 * 1024
    assert pss_in("") == 0


@pytest.mark.integration
def test_group() -> None:
    """A group has the descendants of its leader, those in sessions of their own too, and ends with all of them."""
    inner = "print(flush=True); import time; time.sleep(600)"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', '{inner}'], start_new_session=True)\n"
        "sum(range(3_000_000))\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as leader:
        group = Group(leader)
        try:
            until = time.monotonic() + 40
            # Before the inner process runs its own program it has the command line of the other one.
            assert leader.stdout is not None
            assert leader.stdout.readline() == b"\n"
            assert len(group.pids()) == 2
            assert group.pss() > 1 << 20
            assert 0 < group.pss_of_front(lambda command: "time.sleep(600)'" not in command) < group.pss()
            while group.cpu_seconds() == 0 and time.monotonic() < until:
                time.sleep(0.05)
            assert group.cpu_seconds() > 0
        finally:
            group.end(grace=2.0)
    assert group.pids() == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases(case: object, tmp_path: Path) -> None:
    """Every case has an archive whose manifest names what is in it, and a handler that answers its body."""
    case = case_named(getattr(case, "name", ""))
    with zipfile.ZipFile(build_archive(case, tmp_path)) as archive:
        model = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
        assert {model["handler"], model["configFile"]} < set(archive.namelist())
        assert f"batchSize: {case.batch_size}\n" in archive.read("model-config.yaml").decode()
    if "import torch" in (HANDLERS / case.handler).read_text(encoding="utf-8"):
        pytest.importorskip("torch", reason="torch is not installed")
    answers = handler_of(HANDLERS / case.handler).handle([{"body": bytearray(case.body)}] * 2, None)
    assert len(answers) == 2


def test_unknown_case() -> None:
    """There is no case without a name."""
    with pytest.raises(KeyError):
        case_named("nothing")


def test_bare_loop() -> None:
    """The loop counts requests, not calls."""
    said = loop(HANDLERS / "noop.py", b"", 32, 0.01)
    assert said["requests"] >= 32
    assert said["requests"] % 32 == 0
    assert said["seconds"] >= 0.01


def test_cases_of_scripts() -> None:
    """The scripts for other servers, which cannot import ours, know the same cases."""
    for case in CASES:
        assert served.CLASSES[case.name].partition(".")[0] == case.handler.removesuffix(".py")
        assert served.BATCHES.get(case.name, 1) == case.batch_size
        assert (case.name in served.JSON) is (case.content_type == "application/json")
    for kind in SCRIPTED:
        assert (ROOT / "benchmarks" / "peers" / f"{kind}_app.py").exists()
    assert {kind for _, kind, _ in OTHERS} == {*SCRIPTED, "torchserve"}


def test_what_servers_take() -> None:
    """LitServe reads JSON only, and FastAPI has no batches."""
    taken = {
        kind: [case.name for case in CASES if Peer(kind, kind, Path("python")).takes(case)]
        for kind in ("torchserve", "litserve", "mosec", "triton", "fastapi")
    }
    every = [case.name for case in CASES]
    assert taken["torchserve"] == taken["mosec"] == taken["triton"] == every
    assert taken["litserve"] == [name for name in every if name != "image"]
    assert taken["fastapi"] == [name for name in every if name != "mlp32"]


def test_tensors() -> None:
    """Triton gets numbers in its JSON, and an image after it."""
    for case in CASES:
        head, raw = tensors(case)
        [tensor] = json.loads(head)["inputs"]
        assert raw == (case.body if case.name == "image" else b"")
        assert tensor["shape"] == [1, len(case.body) if raw else len(tensor["data"])]
        if case.content_type == "application/json":
            assert tensor["data"] == json.loads(case.body)
        if raw:
            assert tensor["parameters"] == {"binary_data_size": len(raw)}


@given(lists(binary(max_size=40), min_size=1, max_size=5), binary(max_size=8))
def test_frames_of_the_limit(bodies: list[bytes], more: bytes) -> None:
    """A frame is read when it is whole and not before; until then it is known how many bytes are needed at least."""
    whole = frame(bodies)
    assert bodies_in(whole + more) == (bodies, len(whole))
    for end in range(len(whole)):
        found, needed = bodies_in(bytearray(whole[:end]))
        assert found == []
        assert end < needed <= len(whole)


def test_growth() -> None:
    """What has grown is named; memory may by a little."""
    first = Look(20, 5, 40 << 20, 7)
    assert Look(20, 5, (40 << 20) + MORE_MEMORY, 7 + MORE_DELAYED).exceeds(first) == []
    assert Look(19, 4, 30 << 20, 0).exceeds(first) == []
    grown = ["2 more descriptors", "1 more processes", "20 MB more memory", "93 more delayed calls"]
    assert Look(22, 6, 60 << 20, 100).exceeds(first) == grown


def test_ratio() -> None:
    """The ratio of pairs is the median of each pair's own, so that a machine that slows down changes nothing."""
    drifting = [(110.0 * speed, 100.0 * speed) for speed in (1.0, 0.8, 0.5, 0.3, 0.2)]
    assert ratio(drifting).median == pytest.approx(1.1)
    spread = ratio([(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0), (10.0, 2.0)])
    assert spread == Ratio(2.0, 3.0, 4.0)
    assert str(spread) == "3.000 [2.000 4.000]"


@pytest.mark.parametrize("pairs", [[], [(1.0, 1.0)], [(1.0, 1.0), (1.0, 0.0)], [(0.0, 1.0), (1.0, 1.0)]])
def test_no_ratio(pairs: list[tuple[float, float]]) -> None:
    """One pair tells nothing, and a server without requests has no rate."""
    with pytest.raises(ValueError, match=r"a ratio needs|quartiles need"):
        ratio(pairs)


def test_front_and_worker_apart() -> None:
    """What a change costs is said for all processes, the front and the worker, by the least and the median load."""
    loads = [(Spent(100.0, front, 10.0), Spent(50.0, 40.0, 0.0)) for front in (30.0, 20.0, 90.0)]
    ratios, *parts = described("noop", 8, loads)
    assert ratios == "noop        8 connections   rate 2.000 [2.000 2.000]   processor time 1.000 [0.875 1.750]"
    assert [" ".join(line.split()) for line in parts] == [
        "all µs/request this 30.0 min 40.0 median other 40.0 min 40.0 median ratio 0.750 1.000",
        "front µs/request this 20.0 min 30.0 median other 40.0 min 40.0 median ratio 0.500 0.750",
        "worker µs/request this 10.0 min 10.0 median other 0.0 min 0.0 median ratio - -",
    ]


H2LOAD = """starting benchmark...
spawning thread #0: 1 total client(s). Timing-based test with 0s of warm-up time.

finished in 2.00s, 1500.00 req/s, 93.20KB/s
requests: 3000 total, 3016 started, 3000 done, 2990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 2990 2xx, 0 3xx, 0 4xx, 10 5xx
"""


def test_reading_h2load() -> None:
    """Of ``h2load`` its summary counts, and the latencies in its log."""
    log = [f"1700000000000000\t200\t{latency}\n" for latency in range(1000, 101_000, 1000)]
    load = read_h2load(H2LOAD, log)
    assert load == Load(3000, 2.0, 51.0, 100.0, 0, 10)
    assert not load.clean
    assert read_h2load(H2LOAD.replace("2.00s", "250.00ms"), []).seconds == 0.25
    with pytest.raises(ValueError, match="h2load reported nothing"):
        read_h2load("error: could not connect", [])


def test_without_h2load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gRPC's measurement lacks is named, so that a report without it is no surprise."""
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert not can_call(said.append)
    assert said[0] == "h2load is not installed: gRPC is left out."


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_requests(call: Call) -> None:
    """A request names the model and has the size that is said; its handler sends as many messages as are counted."""
    assert call.case.name.encode() in call.request
    assert call.size < len(call.request) < call.size + 50
    source = (HANDLERS / call.case.handler).read_text(encoding="utf-8")
    assert ("range(9)" in source) is (call.messages == 10)
