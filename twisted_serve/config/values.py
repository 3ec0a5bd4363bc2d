# SPDX-License-Identifier: Apache-2.0
"""
Convert and validate the values of settings.

Each converter accepts the text of a file, an option or an environment variable, or
the value itself, for use from Python.  Converters and validators raise a
:class:`ValueError` that names the allowed values; :class:`ConfigError` adds the source.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from twisted_serve.config.lenient_json import read_lenient_json

# As in Java: no blanks, no underscores, ASCII only. No setting needs more than 19 digits.
_WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


class ConfigError(ValueError):
    """
    An invalid setting; the server does not start with it.

    :ivar problem: The error, with the value and the allowed values; a text "must be …" continues the key.
    :ivar key: The property, or ``None`` if no single one is at fault.
    :ivar place: The file, option or environment variable that is the source, if any.
    """

    def __init__(self, problem: str, key: str | None = None, place: str | None = None) -> None:
        named = key is not None and problem.startswith("must ")
        said = " in ".join(part for part in (None if named else key, place) if part is not None)
        super().__init__((f"{key} {problem}" if named else problem) + (f" ({said})" if said else ""))
        self.problem, self.key, self.place = problem, key, place

    def at(self, place: str) -> ConfigError:
        """Return the same error with the source of the value."""
        return ConfigError(self.problem, self.key, place)


def truth(value: str | bool) -> bool:
    """Parse a switch: "true" in any case is true, all else is false (``docs/torchserve/config_cli.md`` §2.5)."""
    return value if isinstance(value, bool) else value.lower() == "true"


def truth_or_oip(value: str | bool) -> bool:
    """Parse a switch of the Open Inference Protocol: ``oip`` is true, too (``docs/torchserve/rest_api.md`` §1.1)."""
    return truth("true" if value == "oip" else value)


def whole(value: str | int) -> int:
    """
    Parse an integer.

    :raise ValueError: for anything else, including ``1.0``, ``1_000`` and surrounding blanks.
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"must be a whole number, not {value!r}")


def whole_or_auto(value: str | int) -> int | str:
    """
    Parse an integer, or the word ``auto``.

    :raise ValueError: for anything else.
    """
    if value == "auto":
        return value
    try:
        return whole(value)
    except ValueError:
        raise ValueError(f"must be a whole number or auto, not {value!r}") from None


def optional_whole(value: str | int | None) -> int | None:
    """Parse an integer, or return ``None``."""
    return None if value is None else whole(value)


def real(value: str | float) -> float:
    """
    Parse a decimal number.

    :raise ValueError: for anything else, including infinity and ``NaN``.
    """
    if isinstance(value, str):
        number = float(value) if _REAL.fullmatch(value) else math.nan
    else:
        number = math.nan if isinstance(value, bool) else float(value)
    if not math.isfinite(number):
        raise ValueError(f"must be a number, not {value!r}")
    return number


def optional_text(value: str | None) -> str | None:
    """Return the text, or ``None`` if it is empty."""
    return value or None


def a_path(value: str | os.PathLike[str]) -> Path:
    """
    Parse the path of a file or directory.

    :raise ValueError: for an empty path, which would otherwise mean the working directory.
    """
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise ValueError(f"must be a path, not {value!r}")
    return Path(value)


def optional_path(value: str | os.PathLike[str] | None) -> Path | None:
    """Parse the path of a file or directory; return ``None`` if it is empty."""
    return None if value is None or not os.fspath(value) else a_path(value)


def plugin_directory(value: str | os.PathLike[str] | None) -> Path | None:
    """Parse the path of a directory of plug-ins, or a Java class path that ends in ``/*``."""
    path = optional_path(value)
    return path.parent if path is not None and path.name == "*" else path


def words(value: str | Iterable[str]) -> tuple[str, ...]:
    """Parse comma-separated words, and drop repeated ones."""
    each = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(word for one in each if (word := one.strip())))


def optional_pattern(value: str | None) -> str | None:
    """
    Parse a regular expression; return ``None`` if it is empty.

    :raise ValueError: when it does not compile.
    """
    try:
        return None if not value else re.compile(value).pattern
    except (re.error, OverflowError, RecursionError) as e:
        raise ValueError(f"must be a regular expression, not {value!r}: {e}") from e


def patterns(value: str | Iterable[str]) -> tuple[str, ...]:
    """
    Parse comma-separated regular expressions.

    :raise ValueError: when one does not compile.
    """
    each = value.split(",") if isinstance(value, str) else value
    return tuple(pattern for one in each if (pattern := optional_pattern(one.strip())) is not None)


def optional_object(value: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """
    Parse a JSON object; return ``None`` if the text is empty.

    :raise ValueError: when the text is not JSON, or not an object.
    """
    if value is None or value == "":
        return None
    try:
        read = read_lenient_json(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as e:
        raise ValueError(f"must be a JSON object: {e}") from e
    if not isinstance(read, Mapping):
        raise ValueError(f"must be a JSON object, not {read!r}")
    return read


#: The levels of log events, and ``off``, which is above all of them.
LOG_LEVELS = ("debug", "info", "warn", "error", "critical", "off")


def levels_by_name(value: str | Mapping[str, str]) -> Mapping[str, str]:
    """
    Parse the levels of loggers, given as comma-separated ``name=level``, or as a JSON object.

    :raise ValueError: when the text is neither, or has an unknown level.
    """
    pairs: Mapping[str, Any]
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        said = [each.partition("=") for each in value.split(",") if each.strip()]
        pairs = {name.strip(): level for name, _, level in said}
    else:
        pairs = optional_object(value) or {}
    levels = {name: str(level).strip().lower() for name, level in pairs.items()}
    for name, level in levels.items():
        if not name or level not in LOG_LEVELS:
            raise ValueError(f"must be logger=level,… with levels of {', '.join(LOG_LEVELS)}, not {value!r}")
    return levels


def per_version(value: str | Mapping[str, Any]) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """
    Parse a JSON object of models, their versions, and the settings of each (``docs/torchserve/config_cli.md`` §6).

    :raise ValueError: when the text is not JSON, or not of this shape.
    """
    shape = "a JSON object {model: {version: {setting: value}}}"
    try:
        models = read_lenient_json(value or "{}") if isinstance(value, str) else value
    except (ValueError, RecursionError) as e:
        raise ValueError(f"must be {shape}: {e}") from e
    if not isinstance(models, Mapping):
        raise ValueError(f"must be {shape}, not {models!r}")
    for model, versions in models.items():
        if not isinstance(versions, Mapping) or not all(isinstance(v, Mapping) for v in versions.values()):
            raise ValueError(f"must be {shape}; that of {model!r} is {versions!r}")
    return models


_Validator = Callable[[object, object, Any], None]


def at_least(low: float) -> _Validator:
    """Return a validator for numbers from ``low``."""

    def check(_instance: object, _attribute: object, value: float | None) -> None:
        if value is not None and value < low:
            raise ValueError(f"must be at least {low}, not {value}")

    return check


def between(low: float, high: float) -> _Validator:
    """Return a validator for numbers from ``low`` to ``high``."""

    def check(_instance: object, _attribute: object, value: float | None) -> None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"must be from {low:.0f} to {high:.0f}, not {value}")

    return check


def auto_or(check: _Validator) -> _Validator:
    """Return a validator for the word ``auto``, and for what another one accepts."""

    def check_or_pass(instance: object, attribute: object, value: object) -> None:
        if value != "auto":
            check(instance, attribute, value)

    return check_or_pass


def positive(least: float, most: float) -> _Validator:
    """Return a validator for numbers above 0; ``least`` is the smallest accepted, ``most`` the largest."""

    def check(_instance: object, _attribute: object, value: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"must be more than 0 and at most {most:.0f}, not {value}")

    return check


def header_name(_instance: object, _attribute: object, value: str) -> None:
    """Refuse text that is not a valid header name (RFC 9110 §5.1)."""
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"must be the name of a header, not {value!r}")


def one_of(allowed: Collection[object]) -> _Validator:
    """Return a validator for one of a few words or numbers."""

    def check(_instance: object, _attribute: object, value: object) -> None:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(map(str, allowed))}, not {value!r}")

    return check


def text_of(value: object) -> str | None:
    """Render a setting's value as text that parses to the same value; ``None`` for a setting that is not set."""
    if value is None or value == ():
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value)
    return str(value)
