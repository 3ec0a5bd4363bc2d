# SPDX-License-Identifier: Apache-2.0
"""
Make the fields of settings.

A field's name is the property's key.  Its metadata has ``doc``, its description, and
``env``, the environment variables that can set it (``docs/torchserve/config_cli.md`` §2.6, §3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from twisted_serve.config.values import ConfigError, positive

# Dates have a resolution of a microsecond.
MIN_SECONDS = 1e-6

# No timeout is longer than a year.
MAX_SECONDS = 366 * 24 * 3600.0

#: The check of a timeout.
seconds = positive(MIN_SECONDS, MAX_SECONDS)


def about(doc: str, env: tuple[str, ...] | None = None) -> Mapping[str, object]:
    """Return a field's metadata; without ``env``, the variable is ``TS_`` and the field's name in capitals."""
    return {"doc": doc, "env": env}


def mode(value: str) -> str:
    """Return a mode as it is compared, without blanks and in lower case."""
    return value.replace(" ", "").lower()


def word(value: str | bool) -> str:
    """Return a word as it is compared, in lower case."""
    return str(value).strip().lower()


def naming_errors(_cls: type, attributes: list[Any]) -> list[Any]:
    """Make the errors of each field's converter and validator name the setting; for attrs' ``field_transformer``."""

    def naming(name: str, check: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if check is None:
            return None

        @wraps(check)
        def named(*args: object) -> Any:
            try:
                return check(*args)
            except ValueError as e:
                raise ConfigError(str(e), name) from e

        return named

    return [
        # Those of a base class have names already.
        a if a.inherited else a.evolve(converter=naming(a.name, a.converter), validator=naming(a.name, a.validator))
        for a in attributes
    ]
