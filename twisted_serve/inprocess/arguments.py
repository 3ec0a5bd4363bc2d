# SPDX-License-Identifier: Apache-2.0
"""
Check the arguments of the application's calls, which no transport has parsed.
"""

from __future__ import annotations

from twisted_serve.errors import BadRequest


def require_texts(**arguments: object) -> None:
    """
    Check that arguments are strings, and not empty.

    :raise BadRequest: naming the first that is not.
    """
    for name, value in arguments.items():
        if not isinstance(value, str) or not value:
            raise BadRequest(f"{name} must be a string that is not empty, not {value!r:.200}.")


def require_optional_texts(**arguments: object) -> None:
    """
    Check that arguments are ``None`` or as by `require_texts`.

    :raise BadRequest: as `require_texts`.
    """
    require_texts(**{name: value for name, value in arguments.items() if value is not None})


def require_number(name: str, value: object, least: int, most: int) -> None:
    """
    Check that an argument is an integer in a range.

    :raise BadRequest: if it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadRequest(f"{name} must be a number from {least} to {most}, not {value!r:.200}.")
