# SPDX-License-Identifier: Apache-2.0
"""The smallest benchmark there is, end to end: our server alone, one case, one second."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed"),
]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "benchmarks.run", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)


def test_end_to_end(tmp_path: Path) -> None:
    """Rows are measured, kept and shown; missing peers are named; a resumed run measures nothing twice."""
    results = tmp_path / "rows"
    words = [
        "--traffic",
        "--cases",
        "noop",
        "--connections",
        "8",
        "--seconds",
        "1",
        "--rounds",
        "1",
        "--no-grpc",
        # None of the others, even where they are installed.
        "--environments",
        str(tmp_path / "none"),
        "--results",
        str(results),
    ]
    run = bench(*words)
    assert run.returncode == 0, run.stderr
    assert "TorchServe is not installed in its environment: it is left out." in run.stdout
    assert "LitServe is not installed in its environment: it is left out." in run.stdout
    kept = [json.loads(line) for line in results.read_text().splitlines()]
    [ours] = [line["Row"] for line in kept if line.get("Row", {}).get("server") == "twisted_serve"]
    assert ours["clean"]
    assert ours["rate"] > 0
    assert ours["cpu_us"] > 0
    [footprint] = [line["Footprint"] for line in kept if "Footprint" in line]
    assert footprint["front"] > 1 << 20
    [loaded] = [line["Loaded"] for line in kept if "Loaded" in line]
    assert min(loaded["front"], loaded["workers"]) > 1 << 20
    assert "| no-op | twisted_serve | 8 |" in run.stdout
    before = results.read_text()
    assert bench("--resume", *words).returncode == 0
    assert results.read_text() == before
    # A run that was broken off before its end misses what comes last.
    results.write_text("".join(f"{json.dumps(line)}\n" for line in kept if "Loaded" not in line))
    assert bench("--resume", *words).returncode == 0
    again = [json.loads(line) for line in results.read_text().splitlines()]
    assert [list(line) for line in again].count(["Loaded"]) == 1
    assert len(again) == len(kept)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_grpc(tmp_path: Path) -> None:
    """Each call of gRPC is measured, and the front's memory with it and without."""
    results = tmp_path / "rows"
    run = bench("--cases", "--traffic", "--seconds", "1", "--rounds", "1", "--results", str(results))
    assert run.returncode == 0, run.stderr
    kept = [json.loads(line) for line in results.read_text().splitlines()]
    called = [line["Called"] for line in kept if "Called" in line]
    assert [each["call"] for each in called] == ["noop", "noop", "noop", "stream", "large"]
    assert all(each["clean"] and 0 < each["front_us"] < each["cpu_us"] for each in called)
    assert [line["Idle"]["grpc"] for line in kept if "Idle" in line] == [True, False]


def test_compare(tmp_path: Path) -> None:
    """A checkout is compared with itself: ratios, and what all processes, front and worker took."""
    other = tmp_path / "other"
    other.mkdir()
    (other / ".venv").symlink_to(sys.prefix)
    command = [sys.executable, "-m", "benchmarks.compare", str(other)]
    command += ["--cases", "noop", "--connections", "8", "--pairs", "2"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    number = r"\d+\.\d{3}"
    figures = rf"{number} \[{number} {number}\]"
    ratios, *parts = run.stdout.splitlines()
    assert re.fullmatch(rf"noop +8 connections +rate {figures} +processor time {figures}", ratios)
    assert [line.split()[0] for line in parts] == ["all", "front", "worker"]
    for line in parts:
        assert all(float(least) > 0 for least in re.findall(r"([\d.]+) min", line))


def test_scale(tmp_path: Path) -> None:
    """Connections that are kept open are all answered, before a load and after it; each run adds a round."""
    results = tmp_path / "rows"
    command = [
        sys.executable,
        "-m",
        "benchmarks.scale",
        "--subjects",
        "fronts",
        "connections",
        "--connections",
        "1",
        "50",
    ]
    command += ["--seconds", "1", "--loads", "1", "--results", str(results)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    kept = [json.loads(line)["Scaled"] for line in results.read_text().splitlines()]
    idle = [each for each in kept if each["subject"] == "idle connections"]
    assert [(each["size"], each["round"], each["refused"]) for each in idle] == [(1, 1, 0), (50, 1, 0)]
    assert all(each["rate"] > 0 and each["cpu_us"] > 0 for each in kept)
    assert "| idle connections | 50 |" in run.stdout


@pytest.mark.parametrize(
    ("words", "problem"), [(["nowhere"], "needs an environment"), (["nowhere", "--pairs", "1"], "must be at least 2")]
)
def test_compare_with_nothing(words: list[str], problem: str) -> None:
    """What cannot be compared is an error of one line."""
    command = [sys.executable, "-m", "benchmarks.compare", *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert problem in run.stderr.splitlines()[-1]


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_soak() -> None:
    """Workers of a loaded server are killed, calls are left; what was asked is answered, and nothing has grown."""
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "8"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line.startswith("| ")][2:]
    requests, calls, _failed, killed = map(int, rows[-1][1:5])
    assert min(requests, calls) > 100
    assert killed > 0
    assert run.stdout.endswith("Nothing has grown.\n")


def test_chaos() -> None:
    """Processes of every kind are killed under load; only their own connections break, and nothing is left."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--times", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = [line.strip("| ").split(" | ") for line in run.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row[:2] for row in rows] == [[kind, "1"] for kind in ("front", "worker", "template", "server")]
    assert all(int(row[2]) > 0 for row in rows)
    assert run.stdout.endswith("Nothing was wrong.\n")


def test_broken_off(tmp_path: Path) -> None:
    """A run that is told to end takes its servers with it."""
    command = [sys.executable, "-m", "benchmarks.run", "--cases", "noop", "--connections", "8", "--seconds", "20"]
    command += ["--rounds", "1", "--no-grpc", "--results", str(tmp_path / "rows")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        # The bare loop comes first.
        for line in run.stdout:
            if "first prediction" in line:
                break
        started = psutil.Process(run.pid).children(recursive=True)
        assert any("twisted_serve" in " ".join(process.cmdline()) for process in started)
        run.send_signal(signal.SIGTERM)
        assert run.wait(120) == 128 + signal.SIGTERM
    _gone, alive = psutil.wait_procs(started, timeout=40)
    assert alive == []
