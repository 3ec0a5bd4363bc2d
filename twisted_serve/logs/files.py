# SPDX-License-Identifier: Apache-2.0
"""
Write and rotate TorchServe's five log files (``docs/torchserve/config_cli.md`` §9).

A file is rotated each day, and when it is too large; the old files are named
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

# Readable by the server's user and group only.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750


class RotatingFile(LogFile):
    """
    A file that is rotated when it is too large, and each day.

    :param size: The maximal size in bytes.
    :param keep: How many old files are kept.
    :param today: Returns the current date.
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
    The settings of the log files.

    :ivar logs: The directory of the three log files; ``None`` for no log files.
    :ivar metrics: The directory of the two metrics files; ``None`` for no metrics files.
    :ivar size: The size in bytes at which a file is rotated.
    :ivar keep: How many old files are kept.
    :ivar long: The layout of ``ts_log.log`` and ``model_log.log``.
    :ivar short: The layout of the other files.
    """

    logs: Path | None
    metrics: Path | None
    size: int
    keep: int
    long: Layout
    short: Layout


def open_files(settings: FileSettings, today: Callable[[], date]) -> tuple[list[Destination], list[str]]:
    """
    Open all files immediately, although some may remain empty for long.

    :return: The destinations; and, for each directory that cannot be written to, a line with the reason.
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
                destinations.append(Destination(_file_writer(file), layout, loggers))
        except OSError as e:
            problems.append(f"There are no log files in {directory}: {e.strerror}")
    return destinations, problems


def _file_writer(file: RotatingFile) -> Callable[[str], None]:
    def write(lines: str) -> None:
        # A full disk must not stop the server.
        with suppress(OSError):
            file.write(lines.encode("utf-8"))

    return write
