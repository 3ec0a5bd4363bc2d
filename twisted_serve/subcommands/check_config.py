# SPDX-License-Identifier: Apache-2.0
"""
Check a configuration file without starting a server: ``twisted-serve check-config``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
import javaproperties

from twisted_serve.command.checking import check_read_at_start
from twisted_serve.config.arguments import CommandLine
from twisted_serve.config.load import LaunchError, LoadedOptions, load_options
from twisted_serve.config.values import ConfigError
from twisted_serve.subcommands.outcomes import ExitStatus
from twisted_serve.subcommands.output import Output
from twisted_serve.subcommands.session import with_json

_STORE_LATER = "model_store is not set: the server needs --model-store at its start"


@click.command(name="check-config")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@with_json
def check_config(file: str, strict: bool, as_json: bool) -> int:
    """
    Check a configuration file, without starting a server.

    It may be for another machine: files that are missing here are not checked, and listed.
    """
    out = Output(as_json)
    path = Path(file)
    # The named file is meant, whatever the environment names.
    environ = {name: value for name, value in os.environ.items() if name != "TS_CONFIG_FILE"}
    errors: list[str] = []
    warnings: list[str] = []
    unchecked: list[str] = []
    try:
        loaded, warnings = _load(path, environ)
        unchecked = list(loaded.unchecked)
        check_read_at_start(loaded)
    except ConfigError as e:
        errors.append(str(e))
    lines = _lines_of(path)
    said = {
        "file": file,
        "errors": [_located(text, lines) for text in errors],
        "warnings": [_located(text, lines) for text in warnings],
        "unchecked": unchecked,
    }

    def human() -> None:
        for kind, color in (("errors", "red"), ("warnings", "yellow")):
            for each in said[kind]:
                where = file if each["line"] is None else f"{file}:{each['line']}"  # type: ignore[index]
                out.line(f"{where}: {kind[:-1]}: {each['message']}", color)  # type: ignore[index]
        for missing in unchecked:
            out.line(f"{file}: not checked here: {missing}")
        counted = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
        if not errors:
            out.line(f"{file}: a server would start with it" + ("" if not warnings else f"; {counted}"))

    out.result(said, human)
    return ExitStatus.FAILED if errors or (strict and warnings) else ExitStatus.DONE


def _load(path: Path, environ: Mapping[str, str]) -> tuple[LoadedOptions, list[str]]:
    try:
        loaded = load_options(CommandLine(ts_config=path), environ, Path.cwd(), only_look=True)
        return loaded, list(loaded.warnings)
    except LaunchError as e:
        if "--model-store" not in str(e):
            raise
        command = CommandLine(ts_config=path, model_store=Path.cwd())
        loaded = load_options(command, environ, Path.cwd(), only_look=True)
        return loaded, [_STORE_LATER, *loaded.warnings]


def _lines_of(path: Path) -> dict[str, int]:
    """Return the line of each key in a properties file, that of its last value."""
    lines = {}
    number = 1
    try:
        for each in javaproperties.parse(path.read_text(encoding="utf-8-sig", errors="replace")):
            if isinstance(each, javaproperties.KeyValue):
                lines[each.key] = number
            number += each.source.count("\n")
    except (OSError, ValueError):
        pass
    return lines


def _located(text: str, lines: Mapping[str, int]) -> dict[str, object]:
    """Return a message with the line of the setting that it names first."""
    named = [(match.start(), key) for key in lines if (match := _word(key).search(text))]
    return {"message": _one_line(text.split()), "line": lines[min(named)[1]] if named else None}


def _word(key: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.]){re.escape(key)}(?![\w.])")


def _one_line(words: Iterable[str]) -> str:
    return " ".join(words)
