# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``--print-config``: every setting, what it is, and where that was said.

It is a properties file, one line for each setting below a comment with its place,
and says as a ``--ts-config`` what the server was told.  Only what is not set, and
what nobody is to be shown, are comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from twisted_serve.config.load import FILE_ONLY, LoadedOptions
from twisted_serve.config.options import KEYS, SECRETS
from twisted_serve.config.properties import render_properties
from twisted_serve.config.values import text_of, truth

DEFAULT = "default"
REDACTED = "<redacted>"

# What Java escapes in values although no reader needs it there.
_NEEDLESS = re.compile(r"\\([:=#!])")


def config_report(loaded: LoadedOptions) -> str:
    """Write the settings of a server, those that somebody has said first, and what the log would warn of."""
    lines = []
    places = {**dict.fromkeys((*KEYS, *FILE_ONLY), DEFAULT), **loaded.sources}
    places |= {key: setting.place for key, setting in loaded.permissions.items()}
    for place in (*sorted(set(places.values()) - {DEFAULT}), DEFAULT):
        keys = sorted(key for key, said in places.items() if said == place)
        lines += ["", f"# {_in_one_line(place)}", *(_line(loaded, key) for key in keys)]
    return "\n".join([*lines[1:], *_remarks(loaded), ""])


def _line(loaded: LoadedOptions, key: str) -> str:
    if key in FILE_ONLY:
        return f"{key}={text_of(key in loaded.permissions and truth(loaded.permissions[key].text))}"
    text = text_of(getattr(loaded.options, key))
    if key in SECRETS:
        return f"# {key}={REDACTED}"
    if text is None:
        return f"# {key}="
    line = render_properties({key: text}).decode("ascii").rstrip("\n")
    return _NEEDLESS.sub(r"\1", line)


def _remarks(loaded: LoadedOptions) -> Iterator[str]:
    if loaded.warnings or loaded.unchecked:
        yield ""
        yield from (f"# not checked here: {_in_one_line(each)}" for each in loaded.unchecked)
        yield from (f"# warning: {_in_one_line(warning)}" for warning in loaded.warnings)


def _in_one_line(text: str) -> str:
    """Have nothing in a comment end it: what follows would be a setting."""
    return " ".join(text.split())
