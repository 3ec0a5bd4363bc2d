# SPDX-License-Identifier: Apache-2.0
"""
Run an integration test that fails once more, and name it if it passes then.

Ports and processes of a busy machine may fail a test that is right. A test in memory is never run again: nothing
but itself can fail it.
"""

from __future__ import annotations

import pytest

MARKER = "integration"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each integration test be run again once, by pytest-rerunfailures where it is installed."""
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        if item.get_closest_marker(MARKER) is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that failed and passed when they were run again; those that failed twice are named as failed."""
    stats = terminalreporter.stats
    failed = {report.nodeid for outcome in ("failed", "error") for report in stats.get(outcome, ())}
    flaky = sorted({report.nodeid for report in stats.get("rerun", ())} - failed)
    if flaky:
        terminalreporter.section("FLAKY")
        for name in flaky:
            terminalreporter.line(name)
