# SPDX-License-Identifier: Apache-2.0
"""
Render the output of ``--print-config``: every setting with its value and source.

The output is a properties file with one line for each setting, below a comment that names
the source; used as ``--ts-config``, it results in the same settings.  Settings that are not
set, and secrets, are comments.
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

# Java escapes these in values although no parser needs it there.
_NEEDLESS = re.compile(r"\\([:=#!])")


def config_report(loaded: LoadedOptions) -> str:
    """Render the settings of a server, with defaults last, and the warnings that the log would have."""
    lines = []
    places = {**dict.fromkeys((*KEYS, *FILE_ONLY), DEFAULT), **loaded.sources}
    places |= {key: setting.place for key, setting in loaded.permissions.items()}
    for place in (*sorted(set(places.values()) - {DEFAULT}), DEFAULT):
        keys = sorted(key for key, said in places.items() if said == place)
        lines += ["", f"# {_one_line(place)}", *(_line(loaded, key) for key in keys)]
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
        yield from (f"# not checked here: {_one_line(each)}" for each in loaded.unchecked)
        yield from (f"# warning: {_one_line(warning)}" for warning in loaded.warnings)


def _one_line(text: str) -> str:
    """Return text without line ends, after which a comment would continue as a setting."""
    return " ".join(text.split())
