# SPDX-License-Identifier: Apache-2.0
"""
This module implements the opening of a server's log: console and files, or what ``--log-config`` says instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TextIO

from attrs import frozen

from twisted_serve.config.options import ServerOptions
from twisted_serve.config.values import ConfigError
from twisted_serve.logs.configuration import LogConfiguration, PythonLogging, read_log_configuration
from twisted_serve.logs.files import FileSettings, open_files
from twisted_serve.logs.layouts import json_layout, long_layout
from twisted_serve.logs.levels import Levels
from twisted_serve.logs.router import CallLater, Destination, Gathering, Router, to_stream


@frozen
class OpenLog:
    """
    A log that is being written.

    :ivar observer: What takes the events; keys are to be kept from it.
    :ivar warnings: What the operator ought to know of it.
    """

    observer: Router | PythonLogging
    warnings: Sequence[str] = ()


def _today() -> date:
    return datetime.now().astimezone().date()


def open_log(options: ServerOptions, out: TextIO, call_later: CallLater, today: Callable[[], date] = _today) -> OpenLog:
    """
    Open the log of a server.

    :param out: The console.
    :raise ConfigError: for a ``log_config`` that cannot be used.
    """
    said = LogConfiguration({}, None) if options.log_config is None else read_log_configuration(options.log_config)
    by_logger = {**said.levels, **options.log_levels}
    levels = Levels(by_logger.pop("", options.log_level), by_logger)
    if said.python is not None:
        try:
            return OpenLog(PythonLogging(said.python, levels))
        except (ValueError, TypeError, AttributeError, ImportError) as e:
            raise ConfigError(f"cannot be used: {e}", "log_config", str(options.log_config)) from e
    warnings = []
    if options.log_config is not None:
        warnings.append(f"Of {options.log_config} the levels count; appenders, layouts and filters have no effect")
    layout = json_layout if options.log_format == "json" else None
    console = Destination(Gathering(to_stream(out), call_later), layout or long_layout())
    files: list[Destination] = []
    if options.log_files:
        settings = FileSettings(
            options.log_location, options.metrics_location, options.log_rotate_size, options.log_rotate_keep, layout
        )
        files, problems = open_files(settings, call_later, today)
        warnings += problems
    return OpenLog(Router([console, *files], levels), warnings)
