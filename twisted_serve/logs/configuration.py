# SPDX-License-Identifier: Apache-2.0
"""
Read the file of ``--log-config``: a ``dictConfig`` of Python's logging, or TorchServe's log4j2 configuration.

Of a log4j2 file, in XML or properties, only the levels are used: its appenders are Java classes.
A ``logging.config.dictConfig``, in YAML or JSON, configures everything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml
from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from twisted_serve.config.properties import parse_properties
from twisted_serve.config.values import ConfigError
from twisted_serve.logs.levels import LEVELS, Levels
from twisted_serve.logs.records import entry_of, logger_of, without_keys

_LOG4J_LEVELS = {"all": "debug", "trace": "debug", "fatal": "critical", **{level: level for level in LEVELS}}

# The loggers of TorchServe under their names here.
_OURS = {"org.pytorch.serve": "twisted_serve"}

# Keys found only in a properties file of log4j; its other keys could belong to any program.
_LOG4J_1 = re.compile(r"^\s*log4j\.(?:rootLogger|rootCategory|logger|category|appender)\b.*?[=:]", re.M)
_LOG4J_2 = re.compile(r"^\s*(?:rootLogger(?:\.\w+)*|(?:appender|logger)\.\w+(?:\.\w+)*)\s*=", re.M)

_PYTHON_LEVELS = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}


@frozen
class LogConfiguration:
    """
    The content of a configuration file.

    :ivar levels: The levels by logger; ``""`` is the root logger.
    :ivar python: The argument for ``dictConfig``; ``None`` for a file of log4j2.
    :ivar ignored: The reason why the whole file is ignored, or ``None``.
    """

    levels: Mapping[str, str]
    python: dict[str, Any] | None
    ignored: str | None = None


def read_log_configuration(path: Path) -> LogConfiguration:
    """
    Read and parse a configuration file.

    :raise ConfigError: for a file that cannot be read or used.
    """
    try:
        text = path.read_text("utf-8")
        if text.lstrip().startswith("<"):
            return _log4j(text)
        if _LOG4J_1.search(text):
            return LogConfiguration({}, None, "it is a file of log4j 1, which TorchServe does not read either")
        if _LOG4J_2.search(text):
            return _log4j_properties(text)
        return _python_or_log4j(text)
    except OSError as e:
        raise ConfigError(f"cannot be read: {e.strerror}", "log_config", str(path)) from e
    except (ValueError, SyntaxError, yaml.YAMLError) as e:
        raise ConfigError(" ".join(str(e).split()), "log_config", str(path)) from e


def _python_or_log4j(text: str) -> LogConfiguration:
    document = yaml.safe_load(text)
    if isinstance(document, dict) and document.keys() & {"Configuration", "configuration"}:
        return LogConfiguration({}, None, "log4j2's levels are read in its XML and its properties alone")
    if not isinstance(document, dict) or document.get("version") != 1:
        raise ValueError("must be a file of log4j2 in XML, or a dictConfig of Python's logging with version: 1")
    return LogConfiguration({}, document)


def _log4j_properties(text: str) -> LogConfiguration:
    said = parse_properties(text.encode())
    levels = {}
    for key, value in said.items():
        # "rootLogger.level = info", "rootLogger = info, stdout", "logger.x.level = info", "logger.x = info, stdout"
        path = key.removesuffix(".level").split(".")
        level = value.partition(",")[0].strip().lower()
        named = said.get(f"logger.{path[1]}.name", "") if path[0] == "logger" and len(path) == 2 else None
        if level in _LOG4J_LEVELS and (named or path == ["rootLogger"]):
            levels[_OURS.get(named or "", named or "")] = _LOG4J_LEVELS[level]
    return LogConfiguration(levels, None)


def _log4j(text: str) -> LogConfiguration:
    levels = {}
    # The file is trusted: it belongs to the operator, like the server's other settings.
    for element in ElementTree.fromstring(text).iter():  # noqa: S314
        kind = element.tag.rpartition("}")[2].lower()
        said = element.get("level", "").lower()
        if kind in ("root", "asyncroot", "logger", "asynclogger") and said in _LOG4J_LEVELS:
            name = "" if kind.endswith("root") else element.get("name", "")
            levels[_OURS.get(name, name)] = _LOG4J_LEVELS[said]
    return LogConfiguration(levels, None)


@implementer(ILogObserver)
class PythonLogging:
    """
    Pass events on to Python's logging, without the source location, which is slow to find.

    :param levels: The levels of the server; events below them are dropped.
    :param secrets: Called for each event; returns the current keys, which are redacted.
    :raise ValueError: for a configuration that cannot be used.
    """

    def __init__(self, configuration: dict[str, Any], levels: Levels, secrets: Callable[[], Collection[str]]) -> None:
        self._levels = levels
        self._secrets = secrets
        from logging.config import dictConfig  # noqa: PLC0415 - 0.2 MB that few servers need

        dictConfig(configuration)

    def __call__(self, event: LogEvent) -> None:
        """Pass an event on."""
        name, level = logger_of(event), event.get("log_level", LogLevel.info)
        logger, number = logging.getLogger(name), _PYTHON_LEVELS[level]
        if not (self._levels.let_through(name, level) and logger.isEnabledFor(number)):
            return
        [event] = without_keys([event], self._secrets())
        entry = entry_of(event)
        for line in entry.lines:
            text = "\n".join([line, *entry.traceback])
            record = logging.LogRecord(name, number, "", 0, text, (), None)
            record.created = event["log_time"]
            record.threadName = entry.thread
            record.__dict__.update(
                {key: value for key, value in entry.details[0].items() if key not in record.__dict__}
            )
            logger.handle(record)

    def flush(self) -> None:
        """Do nothing: Python's handlers flush themselves."""

    def close(self) -> None:
        """Do nothing: later events are still logged."""
