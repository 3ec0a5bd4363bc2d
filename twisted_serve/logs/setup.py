# SPDX-License-Identifier: Apache-2.0
"""
Set up the log of a server: console and files, or the configuration of ``--log-config``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from typing import TextIO

from attrs import frozen

from twisted_serve.config.options import ServerOptions
from twisted_serve.config.values import ConfigError
from twisted_serve.logs.access import shortcut
from twisted_serve.logs.configuration import LogConfiguration, PythonLogging, read_log_configuration
from twisted_serve.logs.files import FileSettings, open_files
from twisted_serve.logs.layouts import json_layout, text_layouts
from twisted_serve.logs.levels import Levels
from twisted_serve.logs.router import CallLater, Destination, Router, to_stream


@frozen
class OpenLog:
    """
    The log of a running server.

    :ivar observer: Logs events, with keys redacted.
    :ivar warnings: Lines for the operator about settings without effect and unwritable directories.
    """

    observer: Router | PythonLogging
    warnings: Sequence[str] = ()

    def shortcut(self) -> AbstractContextManager[None]:
        """Return the context in which the log takes requests past Twisted's publisher, if it can."""
        return shortcut(self.observer.add_request) if isinstance(self.observer, Router) else nullcontext()


def _today() -> date:
    return date.today()  # noqa: DTZ011 - local, as the times in the files


def open_log(
    options: ServerOptions,
    out: TextIO,
    secrets: Callable[[], Collection[str]],
    call_later: CallLater,
    today: Callable[[], date] = _today,
) -> OpenLog:
    """
    Open the log of a server.

    :param out: The console.
    :param secrets: Returns the current keys, which are redacted.
    :param call_later: Schedules a flush of the buffered lines.
    :param today: Returns the current date.
    :raise ConfigError: for a ``log_config`` that cannot be used.
    """
    said = LogConfiguration({}, None) if options.log_config is None else read_log_configuration(options.log_config)
    by_logger = {**said.levels, **options.log_levels}
    levels = Levels(by_logger.pop("", options.log_level), by_logger)
    if said.python is not None:
        try:
            return OpenLog(PythonLogging(said.python, levels, secrets))
        except (ValueError, TypeError, AttributeError, ImportError) as e:
            raise ConfigError(f"cannot be used: {e}", "log_config", str(options.log_config)) from e
    warnings = []
    if said.ignored is not None:
        warnings.append(f"{options.log_config} has no effect: {said.ignored}")
    elif options.log_config is not None:
        warnings.append(f"Of {options.log_config} the levels count; appenders, layouts and filters have no effect")
    long, short = (json_layout, json_layout) if options.log_format == "json" else text_layouts()
    files: list[Destination] = []
    if options.log_files:
        settings = FileSettings(
            options.log_location,
            options.metrics_location,
            options.log_rotate_size,
            options.log_rotate_keep,
            long,
            short,
        )
        files, problems = open_files(settings, today)
        warnings += problems
    return OpenLog(Router([Destination(to_stream(out), long), *files], levels, secrets, call_later), warnings)
