# SPDX-License-Identifier: Apache-2.0
"""
Compare measurements, and print them as tables.
"""

from __future__ import annotations

from attrs import frozen

from benchmarks.cases import CASES, CONNECTIONS
from benchmarks.policies import compared
from benchmarks.results import LIMIT, LOOP, OPEN, OURS, THEIRS, Results
from benchmarks.rpc import CALLS, middle
from benchmarks.scaling import scaling
from benchmarks.tables import number, table

# Between these a page has what `report` says.
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


@frozen
class Target:
    """
    A ratio that is aimed at.

    :ivar floor: Whether it is a lower bound; else an upper one.
    """

    title: str
    bound: float
    value: float | None
    floor: bool = True

    @property
    def reached(self) -> bool | None:
        """Whether it is reached; ``None`` if there is nothing to compare."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.floor else self.value <= self.bound


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Divide, if there is something to divide by."""
    return numerator / denominator if numerator is not None and denominator else None


def targets(results: Results) -> list[Target]:
    """Compare with what is aimed at."""

    def rate(server: str, case: str, connections: int = 64) -> float | None:
        row = results.best(server, case, connections)
        return None if row is None else row.rate

    def p50(server: str) -> float | None:
        row = results.best(server, "noop", 1)
        return None if row is None else row.p50_ms

    def of(server: str, name: str, case: str = "noop") -> float | None:
        found = results.footprint(server, case)
        return None if found is None else getattr(found, name)

    def front_after_load(server: str) -> float | None:
        found = results.after_load(server, "noop")
        return None if found is None else found.front

    def per(server: str, name: str, unit: float, case: str) -> float | None:
        return ratio(of(server, name, case), unit)

    return [
        Target("no-op, requests/s to TorchServe's", 4.0, ratio(rate(OURS, "noop"), rate(THEIRS, "noop"))),
        Target("MLP batch 1, likewise", 3.0, ratio(rate(OURS, "mlp1"), rate(THEIRS, "mlp1"))),
        Target("MLP batch 32, likewise", 1.5, ratio(rate(OURS, "mlp32"), rate(THEIRS, "mlp32"))),
        Target("p50 of no-op at 1 connection, to TorchServe's", 0.65, ratio(p50(OURS), p50(THEIRS)), False),
        Target(
            "10 ms model, requests/s to the bare loop's", 0.95, ratio(rate(OURS, "encoder"), rate(LOOP, "encoder", 0))
        ),
        Target(
            "front's memory to the JVM's, after load",
            0.2,
            ratio(front_after_load(OURS), front_after_load(THEIRS)),
            False,
        ),
        Target("a further worker of the 10 ms model, MB", 10.0, per(OURS, "further", 1e6, "encoder"), False),
        Target("a further worker of the 10 ms model, ms", 80.0, per(OURS, "further_worker", 1e-3, "encoder"), False),
        Target(
            "command to first prediction, to TorchServe's",
            0.6,
            ratio(of(OURS, "first_prediction"), of(THEIRS, "first_prediction")),
            False,
        ),
        Target("no-op with tokens to without", 0.97, ratio(rate(OURS, "noop"), rate(OPEN, "noop"))),
        *costs(results),
        *(calls_targets(results) if results.called or results.idle else []),
    ]


# The most microseconds of all processes for a request, at 64 connections, by case.
_COSTS = {"noop": 75.0, "mlp1": 170.0, "mlp32": 70.0, "image": 650.0}

# The servers that answer as many requests.
_FAST = ("Mosec", "Triton", "FastAPI, log off")


def costs(results: Results) -> list[Target]:
    """Compare processor time with what is aimed at, and rates with those of the fastest servers."""
    titles = {case.name: case.title for case in CASES}
    found = []
    for case, most in _COSTS.items():
        row = results.best(OURS, case, 64)
        found.append(Target(f"{titles[case]}: processor time a request, µs", most, row and row.cpu_us, False))
        for server in _FAST:
            other = results.best(server, case, 64)
            if other is not None:
                title = f"{titles[case]}: requests/s to {server}'s"
                found.append(Target(title, 1.0, ratio(row and row.rate, other.rate)))
    alone, batched = results.best(OURS, "noop", 1), results.best(OURS, "mlp32", 64)
    found.append(Target("no-op: p50 at 1 connection, ms", 0.25, alone and alone.p50_ms, False))
    found.append(Target("MLP batch 32: p99 at 64 connections, ms", 12.0, batched and batched.p99_ms, False))
    return found


def processor_times(results: Results) -> str:
    """Write the tables of the processor time of a request at 64 connections, beside the fastest servers'."""
    others = [server for server in (LIMIT, *_FAST) if server in results.servers()]
    times, ratios = [], []
    for case in CASES:
        if case.name in _COSTS:
            ours = results.best(OURS, case.name, 64)
            beside = [results.best(server, case.name, 64) for server in others]
            cells = [number(row and row.cpu_us) for row in (*beside, ours)]
            times.append([case.title, *cells, f"{_COSTS[case.name]:g}"])
            shares = [ratio(ours and ours.cpu_us, row and row.cpu_us) for row in beside]
            ratios.append([case.title, *map(number, shares)])
    head = ["case", *(f"{server}, µs" for server in (*others, OURS)), "at most"]
    parts = ["Processor time a request, of all processes, at 64 connections:\n", table(head, times)]
    parts += [f"The same, {OURS}'s to that of others:\n", table(["case", *(f"to {name}" for name in others)], ratios)]
    return "\n".join(parts)


def calls_targets(results: Results) -> list[Target]:
    """Compare gRPC with what is aimed at."""
    found = []
    for call in CALLS:
        for shape in call.shapes:
            ours, theirs = (middle(results, server, call.name, shape) for server in (OURS, THEIRS))
            what = f"gRPC, {call.title}, {shape[0]}x{shape[1]}"
            small = call.name != "large"
            cost = ratio(ours and ours.cpu_us, theirs and theirs.cpu_us)
            found.append(Target(f"{what}: processor time a call, to TorchServe's", 0.45 if small else 1.0, cost, False))
            if small:
                found.append(
                    Target(f"{what}: calls/s to TorchServe's", 2.0, ratio(ours and ours.rate, theirs and theirs.rate))
                )
    sizes = {each.grpc: each.front for each in results.idle if each.server == OURS}
    more = (sizes[True] - sizes[False]) / 1e6 if len(sizes) == 2 else None
    found.append(Target("front's memory with gRPC, more than without, MB", 4.0, more, False))
    return found


def report(results: Results) -> str:
    """Write all tables, in Markdown."""
    machine = results.machine
    said = ", ".join(f"{name}: {value}" for name, value in machine.items())
    parts = [f"{said}.\n" if said else "", loads(results), memory(results)]
    if any(server in results.servers() for server in (LIMIT, *_FAST)):
        parts.append(processor_times(results))
    words = {True: "yes", False: "no", None: "-"}
    lines = [
        [each.title, number(each.value), f"{'≥' if each.floor else '≤'} {each.bound:g}", words[each.reached]]
        for each in targets(results)
    ]
    parts.append(table(["ratio", "measured", "target", "reached"], lines))
    if results.called:
        parts.append(calls(results))
    if results.scaled:
        parts.append(scaling(results.scaled))
    if results.paced:
        parts.append(policies(results))
    return "\n".join(parts)


def loads(results: Results) -> str:
    """Write the table of rates, latencies and processor time, and name what is left out."""
    parts = []
    titles = {case.name: case.title for case in CASES}
    lines = []
    for case, title in titles.items():
        for connections in (0, *CONNECTIONS):
            for server in results.servers():
                row = results.best(server, case, connections)
                if row is not None:
                    numbers = [row.rate, row.p50_ms or None, row.p99_ms or None, row.cpu_us]
                    lines.append([title, server, str(connections or "-"), *map(number, numbers)])
    parts.append(table(["case", "server", "connections", "requests/s", "p50, ms", "p99, ms", "CPU/request, µs"], lines))
    spoilt = sorted(
        {(row.server, titles.get(row.case, row.case), row.connections) for row in results.rows if not row.clean}
    )
    if spoilt:
        named = "; ".join(f"{server}, {case}, {connections} connections" for server, case, connections in spoilt)
        parts.append(f"Left out, because too many requests failed: {named}.\n")
    return "\n".join(parts)


def memory(results: Results) -> str:
    """Write the tables of what servers take."""
    parts = []
    titles = {case.name: case.title for case in CASES}
    lines = []
    for case, title in titles.items():
        for server in results.servers():
            each = results.footprint(server, case)
            if each is not None:
                loaded = results.after_load(server, case)
                after_load = (None, None) if loaded is None else (loaded.front, loaded.workers)
                sizes = [each.front, after_load[0], each.first_worker, after_load[1], each.further]
                times = [each.first_prediction, each.further_worker * 1e3]
                lines.append([title, server, *map(number, [*(ratio(size, 1e6) for size in sizes), *times])])
    head = [
        "case",
        "server",
        "front, MB",
        "front after load, MB",
        "first worker, MB",
        "first worker after load, MB",
        "further worker, MB",
        "first prediction, s",
        "further worker, ms",
    ]
    parts.append(table(head, lines))
    lines = []
    for case, title in titles.items():
        taken = [(server, results.after_load(server, case)) for server in results.servers()]
        lines += [
            [title, server, number((each.front + each.workers) / 1e6)] for server, each in taken if each is not None
        ]
    parts.append(table(["case", "server", "all processes after load, MB"], lines))
    return "\n".join(parts)


def calls(results: Results) -> str:
    """Write the table of gRPC."""
    lines = []
    for call in CALLS:
        for shape in call.shapes:
            for server in dict.fromkeys(each.server for each in results.called):
                each = middle(results, server, call.name, shape)
                if each is not None:
                    numbers = [each.rate, each.p50_ms, each.p99_ms, each.front_us, each.cpu_us]
                    lines.append([call.title, server, f"{shape[0]}x{shape[1]}", *map(number, numbers)])
    head = ["gRPC", "server", "connections x calls", "calls/s", "p50, ms", "p99, ms", "front/call, µs", "all/call, µs"]
    return table(head, lines)


def policies(results: Results) -> str:
    """Write the table of our server's batch policies under open loads."""
    lines = []
    for each in compared(results):
        numbers = [each.answered, *each.latencies_ms, each.batch, each.cpu_us]
        ratios = [
            "-" if each.policy == "eager" else f"{mid:.2f} ({low:.2f}-{high:.2f})" for mid, low, high in each.ratios
        ]
        lines.append([each.traffic.title, f"{each.load:g}", each.policy, *map(number, numbers), *ratios])
    head = ["traffic", "load", "policy", "answers/s", "mean, ms", "p50, ms", "p95, ms", "p99, ms", "batch, mean"]
    head += ["CPU/answer, µs", "answers to eager's", "mean to eager's", "p95 to eager's", "CPU to eager's"]
    return table(head, lines)


def with_section(page: str, section: str) -> str:
    """
    Put a section between the two marks of a page, in place of what was there.

    :raise ValueError: when the page has not both marks, once and in order.
    """
    before, begun, rest = page.partition(BEGIN)
    _old, ended, after = rest.partition(END)
    if not (begun and ended) or BEGIN in after or END in after:
        raise ValueError(f"the page needs {BEGIN} and {END}, once and in this order")
    return f"{before}{BEGIN}\n\n{section}\n{END}{after}"
