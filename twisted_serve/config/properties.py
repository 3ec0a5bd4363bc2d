# SPDX-License-Identifier: Apache-2.0
"""
Parse and render ``config.properties``: Java's grammar, and ``$$NAME$$`` for environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import javaproperties

from twisted_serve.config.values import ConfigError

_BLANKS = " \t\f"
_VARIABLE = re.compile(r"\$\$([^$]{2,})\$\$")
_LINE_END = re.compile(r"\r\n|\r|\n")


def parse_properties(data: bytes) -> dict[str, str]:
    """
    Parse a properties file; the last value of a repeated key is used.

    This accepts more than Java does (``docs/torchserve/config_cli.md`` §2.2): the text may be UTF-8
    (otherwise it is taken for Latin-1), and blanks at the end of a value are ignored.

    :raise ConfigError: for a broken ``\\u`` escape.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("iso-8859-1")
    try:
        return dict(javaproperties.loads("\n".join(_without_blanks_at_the_end(text))))
    except javaproperties.InvalidUEscapeError as e:
        raise ConfigError(str(e)) from e


def _without_blanks_at_the_end(text: str) -> Iterator[str]:
    for line in _LINE_END.split(text):
        kept = line.rstrip(_BLANKS)
        backslashes = len(kept) - len(kept.rstrip("\\"))
        # An escaped blank is intended; and removing it would join this line to the next.
        yield line[: len(kept) + 1] if backslashes % 2 else kept


def render_properties(values: Mapping[str, str]) -> bytes:
    """Render a properties file that every parser, TorchServe's included, reads as ``values``."""
    lines = []
    for key, value in values.items():
        line = javaproperties.join_key_value(key, value)
        if value[1:].endswith(" "):
            line = line[:-1] + "\\ "
        lines.append(line + "\n")
    return "".join(lines).encode("ascii")


def expand(values: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """
    Expand ``$$NAME$$`` in values to environment variables (``docs/torchserve/config_cli.md`` §2.3).

    The content of a variable is not expanded again.

    :raise ConfigError: for a variable that is not set.
    """

    def expanded(key: str, text: str) -> str:
        def variable(match: re.Match[str]) -> str:
            if match[1] not in environ:
                raise ConfigError(f"Invalid Environment Variable {match[1]}", key)
            return environ[match[1]]

        return _VARIABLE.sub(variable, text)

    return {key: expanded(key, text) for key, text in values.items()}
