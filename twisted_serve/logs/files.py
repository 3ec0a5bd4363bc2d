# SPDX-License-Identifier: Apache-2.0
"""
This module implements the predecessor's five files (``docs/torchserve/config_cli.md`` §9), and their rotation.

A file is begun anew each day, and when it is too large; the old ones are called
``ts_log.log.1``, ``ts_log.log.2`` and so on, the latest first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

from attrs import frozen
from twisted.python.logfile import LogFile

from twisted_serve.logs.events import ACCESS_LOG, MODEL_LOG, MODEL_METRICS, TS_METRICS
from twisted_serve.logs.layouts import Layout
from twisted_serve.logs.router import Destination

# What is in them is for the server's user and group.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750


class RotatingFile(LogFile):
    """
    A file that is begun anew when it is too large, and each day.

    :param today: The date.
    """

    def __init__(self, path: Path, size: int, keep: int, today: Callable[[], date]) -> None:
        self._today = today
        self._day = today()
        if path.exists():
            self._day = date.fromtimestamp(path.stat().st_mtime)  # noqa: DTZ012 - local, as the times in it
        super().__init__(path.name, str(path.parent), size, _FILE_MODE, keep)

    def shouldRotate(self) -> bool:
        """See `LogFile`."""
        return self.size > 0 and (self.size >= self.rotateLength or self._today() != self._day)

    def rotate(self) -> None:
        """See `LogFile`."""
        self._day = self._today()
        super().rotate()


@frozen
class FileSettings:
    """
    What is to be known of the files.

    :ivar logs: The directory of three of them; ``None``: there are none.
    :ivar metrics: That of the two with metrics.
    :ivar size: Bytes at which a file is begun anew.
    :ivar keep: How many old ones are kept.
    :ivar long: What lines look like where there are everybody's, or a model's; ``short``: elsewhere.
    """

    logs: Path | None
    metrics: Path | None
    size: int
    keep: int
    long: Layout
    short: Layout


def open_files(settings: FileSettings, today: Callable[[], date]) -> tuple[list[Destination], list[str]]:
    """
    Open the files, each of them at once, although nothing may be written to it for long.

    :return: Where to write; and, in a line for each directory, why it cannot be written to.
    """
    long, short = settings.long, settings.short
    wanted: list[tuple[Path | None, dict[str, tuple[Layout, frozenset[str] | None]]]] = [
        (
            settings.logs,
            {
                "access_log.log": (short, frozenset({ACCESS_LOG})),
                "ts_log.log": (long, None),
                "model_log.log": (long, frozenset({MODEL_LOG})),
            },
        ),
        (
            settings.metrics,
            {
                "ts_metrics.log": (short, frozenset({TS_METRICS})),
                "model_metrics.log": (short, frozenset({MODEL_METRICS})),
            },
        ),
    ]
    destinations, problems = [], []
    for directory, files in wanted:
        if directory is None:
            continue
        try:
            directory.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
            for name, (layout, loggers) in files.items():
                file = RotatingFile(directory / name, settings.size, settings.keep, today)
                destinations.append(Destination(_to_file(file), layout, loggers))
        except OSError as e:
            problems.append(f"There are no log files in {directory}: {e.strerror}")
    return destinations, problems


def _to_file(file: RotatingFile) -> Callable[[str], None]:
    def write(lines: str) -> None:
        # A disk that is full is no reason to stop serving.
        with suppress(OSError):
            file.write(lines.encode("utf-8"))

    return write
