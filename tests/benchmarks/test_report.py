# SPDX-License-Identifier: Apache-2.0
"""Tests for what the benchmarks make of measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, text

from benchmarks.picture import bars
from benchmarks.report import BEGIN, END, Target, ratio, report, targets, with_section
from benchmarks.results import (
    LIMIT,
    LOOP,
    OPEN,
    OURS,
    THEIRS,
    Called,
    Footprint,
    Idle,
    Loaded,
    Measured,
    Paced,
    Results,
    Row,
    Scaled,
)
from benchmarks.scaling import scaling
from benchmarks.tables import number, table


def results_with(file: Path, *measured: Measured) -> Results:
    """Keep some measurements."""
    results = Results(file)
    for each in measured:
        results.add(each)
    return results


def row(server: str, rate: float, number: int = 1, clean: bool = True, case: str = "noop", at: int = 64) -> Row:
    """Make a row of which only some numbers matter."""
    return Row(server, case, at, number, rate, 2.0, 9.0, 100.0, clean)


def test_kept_at_once(tmp_path: Path) -> None:
    """What has been measured is in the file, and is known to the run that goes on."""
    file = tmp_path / "rows"
    footprint = Footprint(OURS, "noop", 1, 50_000_000, 20_000_000, 5_000_000, 1.5, 0.06)
    loaded = Loaded(OURS, "noop", 1, 52_000_000, 21_000_000)
    results_with(file, row(OURS, 5000.0), footprint, loaded).describe({"processors": 2})
    again = Results(file)
    assert (again.rows, again.footprints, again.machine) == ([row(OURS, 5000.0)], [footprint], {"processors": 2})
    assert again.loaded == [loaded]
    assert again.has((OURS, "noop", 64, 1))
    assert again.has((OURS, "noop", 1))
    assert again.has((OURS, "noop", 1, "loaded"))
    assert not again.has((THEIRS, "noop", 1, "loaded"))
    assert not again.has((OURS, "noop", 64, 2))
    assert not again.has((THEIRS, "noop", 64, 1))


def test_strange_measurements(tmp_path: Path) -> None:
    """What is no measurement is not taken for one."""
    file = tmp_path / "rows"
    file.write_text('{"Guess": {"server": "twisted_serve"}}\n')
    with pytest.raises(ValueError, match="rows has a Guess, which is no measurement"):
        Results(file)


def test_medians_of_clean_rounds(tmp_path: Path) -> None:
    """Of several rounds the median counts; what was spoilt by errors does not, and is named."""
    results = results_with(
        tmp_path / "rows",
        row(OURS, 100.0),
        row(OURS, 900.0, 2),
        row(OURS, 300.0, 3),
        row(OURS, 90000.0, 4, clean=False),
        row(THEIRS, 50000.0, clean=False),
    )
    best = results.best(OURS, "noop", 64)
    assert best is not None
    assert best.rate == 300.0
    assert results.best(THEIRS, "noop", 64) is None
    assert "Left out, because too many requests failed: TorchServe, no-op, 64 connections" in report(results)


def test_targets(tmp_path: Path) -> None:
    """Ratios are made of the same case, at 64 connections, and compared with their bounds."""
    results = results_with(
        tmp_path / "rows",
        row(OURS, 4200.0),
        row(THEIRS, 1000.0),
        row(THEIRS, 1.0, at=8),
        row(OPEN, 4400.0),
        row(OURS, 85.0, case="encoder"),
        Row(LOOP, "encoder", 0, 1, 100.0, 0.0, 0.0, 10.0),
        Footprint(OURS, "encoder", 1, 50_000_000, 20_000_000, 5_000_000, 1.5, 0.06),
    )
    found = {target.title: target for target in targets(results)}
    assert found["no-op, requests/s to TorchServe's"].value == 4.2
    assert found["no-op, requests/s to TorchServe's"].reached is True
    assert found["10 ms model, requests/s to the bare loop's"].reached is False
    assert found["no-op with tokens to without"].value == pytest.approx(0.9545, abs=1e-4)
    assert found["no-op with tokens to without"].reached is False
    assert found["a further worker of the 10 ms model, MB"].value == 5.0
    assert found["a further worker of the 10 ms model, MB"].reached is True
    assert found["a further worker of the 10 ms model, ms"].value == pytest.approx(60.0)
    assert found["MLP batch 1, likewise"].reached is None
    assert found["front's memory to the JVM's, after load"].reached is None


def test_memory_after_load(tmp_path: Path) -> None:
    """Fronts are compared by what they take after the same load, and both figures are shown."""
    idle = [
        Footprint(OURS, "noop", 1, 50_000_000, 20_000_000, 5_000_000, 1.5, 0.06),
        Footprint(THEIRS, "noop", 1, 170_000_000, 220_000_000, 170_000_000, 2.0, 1.0),
    ]
    loaded = [
        Loaded(OURS, "noop", 1, 51_000_000, 31_000_000),
        Loaded(OURS, "noop", 2, 55_000_000, 21_000_000),
        Loaded(OURS, "noop", 3, 53_000_000, 23_000_000),
        Loaded(THEIRS, "noop", 1, 530_000_000, 230_000_000),
    ]
    results = results_with(tmp_path / "rows", row(OURS, 5.0), row(THEIRS, 1.0), *idle, *loaded)
    assert results.after_load(OURS, "noop") == Loaded(OURS, "noop", 0, 53_000_000, 23_000_000)
    [target] = [each for each in targets(results) if each.title == "front's memory to the JVM's, after load"]
    assert (target.value, target.reached) == (0.1, True)
    assert "| no-op | twisted_serve | 50.0 | 53.0 | 20.0 | 23.0 | 5.00 | 1.50 | 60.0 |" in report(results)


def test_memory_before_it_was_measured_after_load(tmp_path: Path) -> None:
    """Results of an older benchmark can be shown; what they do not have is not claimed."""
    file = tmp_path / "rows"
    results_with(
        file,
        row(OURS, 5.0),
        Footprint(OURS, "noop", 1, 50_000_000, 20_000_000, 5_000_000, 1.5, 0.06),
        Footprint(THEIRS, "noop", 1, 170_000_000, 220_000_000, 170_000_000, 2.0, 1.0),
    )
    assert "| no-op | twisted_serve | 50.0 | - | 20.0 | - | 5.00 | 1.50 | 60.0 |" in report(Results(file))
    [target] = [each for each in targets(Results(file)) if each.title == "front's memory to the JVM's, after load"]
    assert target.reached is None


def test_processor_times(tmp_path: Path) -> None:
    """Processor time stands beside that of the fastest servers and the limit; who was not measured has no column."""
    measured = [(OURS, "noop", 60.0), (LIMIT, "noop", 24.0), ("Mosec", "noop", 120.0), ("Mosec", "mlp32", 62.0)]
    rows = [Row(server, case, 64, 1, 1.0, 2.0, 9.0, cpu) for server, case, cpu in measured]
    shown = report(results_with(tmp_path / "rows", *rows, Loaded("Mosec", "noop", 1, 527_000_000, 0)))
    assert "| case | bare Twisted protocol, µs | Mosec, µs | twisted_serve, µs | at most |" in shown
    assert "| no-op | 24.0 | 120 | 60.0 | 75 |" in shown
    assert "| no-op | 2.50 | 0.50 |" in shown
    assert "| MLP 64-256-10, batch 32 | - | 62.0 | - | 70 |" in shown
    assert "| no-op | Mosec | 527 |" in shown
    assert "Triton, µs" not in shown
    assert "at most" not in report(results_with(tmp_path / "others", row(OURS, 1.0), row(THEIRS, 1.0)))


def test_scaling(tmp_path: Path) -> None:
    """Sizes are compared with the smallest, by the medians of rounds; memory is that of each one more."""

    def scaled(subject: str, size: int, number: int, rate: float, cpu: float, front: int, refused: int = 0) -> Scaled:
        return Scaled(subject, size, number, rate, 9.0, cpu, front, refused)

    file = tmp_path / "rows"
    measured = [scaled("idle connections", 1, 1, 5000.0, 100.0, 60_000_000)]
    measured += [scaled("idle connections", 1001, 1, 4000.0, 110.0, 63_000_000, refused=2)]
    measured += [scaled("idle connections", 1001, 2, 4500.0, 130.0, 65_000_000, refused=1)]
    measured += [scaled("models", 200, 1, 1000.0, 90.0, 70_000_000)]
    results = results_with(file, *measured)
    assert Results(file).scaled == measured
    assert Results(file).has(("models", 200, 1, "scaled"))
    shown = scaling(results.scaled)
    assert "| idle connections | 1 | 5 000 | 1.00 | 9.00 | 100 | 1.00 | 60.0 | - | 0 |" in shown
    assert "| idle connections | 1001 | 4 250 | 0.85 | 9.00 | 120 | 1.20 | 64.0 | 4.0 | 3 |" in shown
    assert "| models | 200 | 1 000 | 1.00 | 9.00 | 90.0 | 1.00 | 70.0 | - | 0 |" in shown
    assert shown in report(results)
    assert scaling([]).count("\n") == 2


def test_bounds() -> None:
    """A bound is reached at the bound itself."""
    assert Target("", 4.0, 4.0).reached is True
    assert Target("", 4.0, 3.99).reached is False
    assert Target("", 0.65, 0.65, floor=False).reached is True
    assert Target("", 0.65, 0.66, floor=False).reached is False
    assert (ratio(1.0, 0.0), ratio(None, 1.0), ratio(1.0, None), ratio(1.0, 4.0)) == (None, None, None, 0.25)


def test_empty(tmp_path: Path) -> None:
    """With nothing measured, nothing is claimed."""
    results = Results(tmp_path / "rows")
    assert all(target.reached is None for target in targets(results))
    assert " yes |" not in report(results)
    assert results.servers() == []


def test_table() -> None:
    """Numbers stand to the right."""
    assert table(["case", "connections"], [["a", "1"]]) == "| case | connections |\n| --- | ---: |\n| a | 1 |\n"


@given(floats(min_value=0.001, max_value=1e9))
def test_numbers_are_readable(value: float) -> None:
    """A number in a table is close to what was measured, and short."""
    shown = number(value)
    assert abs(float(shown.replace(" ", "")) - value) <= max(0.0051, value * 0.006)
    assert len(shown) <= 13


@given(text(), text(), text())
def test_section(before: str, after: str, section: str) -> None:
    """Only what is between the marks changes, and doing it again changes nothing."""
    once = with_section(f"{before}{BEGIN}old{END}{after}", section)
    assert once == f"{before}{BEGIN}\n\n{section}\n{END}{after}"
    assert with_section(once, section) == once


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}", f"{BEGIN}{END}{END}"])
def test_page_without_marks(page: str) -> None:
    """A page which does not say where the tables go is left alone."""
    with pytest.raises(ValueError, match="once and in this order"):
        with_section(page, "x")


def test_picture_shows_shares(tmp_path: Path) -> None:
    """Each case has its own scale; who was not measured has no bar."""
    results = results_with(
        tmp_path / "rows", row(OURS, 400.0), row(THEIRS, 100.0), row(OPEN, 500.0), row("LitServe", 5.0, at=1)
    )
    assert bars(results, 64) == {OURS: [1.0, 0.0, 0.0, 0.0, 0.0], THEIRS: [0.25, 0.0, 0.0, 0.0, 0.0]}


@given(integers(min_value=1, max_value=5))
def test_order_of_servers(rounds: int) -> None:
    """Servers are shown in the order in which they took their turns."""
    results = Results(Path("/nonexistent/rows"))
    results.rows = [row(server, 1.0, number) for number in range(rounds) for server in (OURS, THEIRS)]
    assert results.servers() == [OURS, THEIRS]


def test_policies_are_compared_in_pairs(tmp_path: Path) -> None:
    """A ratio is made within a round; a round that lacks a policy does not count for it."""

    def paced(policy: str, number: int, p95: float, answered: float = 50.0) -> Paced:
        return Paced(policy, "deadline", 1.3, number, 100.0, answered, (1.0, 1.0, p95, 9.0), 3.0, 500.0)

    file = tmp_path / "rows"
    measured = [paced("eager", 1, 10.0), paced("adaptive", 1, 5.0, 75.0), paced("eager", 2, 100.0)]
    measured += [paced("adaptive", 2, 80.0, 75.0), paced("eager", 3, 10.0), paced("adaptive", 3, 7.0, 75.0)]
    results_with(file, *measured, paced("adaptive", 4, 1.0))
    again = Results(file)
    assert again.paced == [*measured, paced("adaptive", 4, 1.0)]
    assert again.has(("adaptive", "deadline", 1.3, 4))
    assert not again.has(("eager", "deadline", 1.3, 4))
    [line] = [line for line in report(again).splitlines() if "| adaptive |" in line]
    assert "| 1.50 (1.50-1.50) |" in line
    assert "| 0.70 (0.50-0.80) |" in line
    assert "window" not in report(again)


def test_calls(tmp_path: Path) -> None:
    """gRPC is compared call by call, by the medians of clean rounds; memory with the extra and without."""

    def called(server: str, call: str, number: int, rate: float, cpu: float, clean: bool = True) -> Called:
        return Called(server, call, 1, 16, number, rate, 1.0, 2.0, cpu - 50.0, cpu, clean)

    file = tmp_path / "rows"
    measured: list[Measured] = [called(OURS, "noop", 1, 3000.0, 300.0), called(THEIRS, "noop", 1, 1000.0, 800.0)]
    measured += [called(OURS, "noop", 2, 5000.0, 400.0), called(OURS, "noop", 3, 9e9, 1.0, clean=False)]
    measured += [called(OURS, "large", 1, 500.0, 900.0), called(THEIRS, "large", 1, 900.0, 1000.0)]
    results_with(file, *measured, Idle(OURS, True, 53_000_000), Idle(OURS, False, 50_000_000))
    again = Results(file)
    assert again.has((OURS, "noop", 1, 16, 2))
    assert again.has((OURS, "idle", True))
    assert not again.has((THEIRS, "noop", 1, 16, 2))
    found = {target.title: target for target in targets(again)}
    assert found["gRPC, no-op, 1x16: calls/s to TorchServe's"].value == 4.0
    cost = found["gRPC, no-op, 1x16: processor time a call, to TorchServe's"]
    assert (cost.value, cost.reached) == (0.4375, True)
    large = found["gRPC, 150 KB, 1x16: processor time a call, to TorchServe's"]
    assert (large.value, large.reached) == (0.9, True)
    assert found["gRPC, no-op, 4x16: calls/s to TorchServe's"].reached is None
    memory = found["front's memory with gRPC, more than without, MB"]
    assert (memory.value, memory.reached) == (3.0, True)
    assert "| no-op | twisted_serve | 1x16 | 4 000 | 1.00 | 2.00 | 300 | 350 |" in report(again)
