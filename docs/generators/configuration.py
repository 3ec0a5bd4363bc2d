# SPDX-License-Identifier: Apache-2.0
"""
Render ``docs/configuration.md``, the page of all settings.

After a change of a setting, in the root of the repository::

    python -m docs.generators.configuration > docs/configuration.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from attrs import Factory, fields

from twisted_serve.config.load import ENVIRONMENT_SWITCH, URLS_SWITCH
from twisted_serve.config.options import ALWAYS_READ, ServerOptions, environment_names
from twisted_serve.config.values import text_of
from twisted_serve.config.without_effect import ACCEPTED_WITHOUT_EFFECT

_HEAD = f"""\
# Configuration

<!-- Made by `python -m docs.generators.configuration > docs/configuration.md`: change the settings' own lines. -->

A server takes its settings from four sources; an earlier one overrides a later one:

1. environment variables, if the file has `{ENVIRONMENT_SWITCH}=true`;
2. the command line: `--model-store`, `--models`, `--plugins-path`, `--disable-token-auth`, `--enable-model-api`;
3. a file: the one that `TS_CONFIG_FILE` or `--ts-config` names, or `config.properties` in the directory in which the
   server starts; if none is named, also the newest [snapshot](snapshots.md), which the file overrides;
4. the defaults.

The file is a Java properties file: `key=value` lines, `#` for comments, `\\` to continue a line. `$$NAME$$` in a value
stands for the environment variable `NAME`. Paths are relative to the directory in which the server starts. Switches are
on for `true` in any case, and off for everything else.

An invalid value keeps the server from starting, with a line that names the value and its source. A setting that does
not exist causes a warning. `twisted-serve --print-config`, with the other flags that a server would be started with,
starts nothing and prints every setting, below a comment that names its source. It does not need the directories and
files that are missing on this machine: it lists them as not checked."""

_ENVIRONMENT = f"""\
## Environment

Where a file has `{ENVIRONMENT_SWITCH}=true`, each setting can also come from a variable: `TS_` and its name in
capitals, for example `TS_INFERENCE_ADDRESS`. `TS_ALLOWED_URLS` needs `{URLS_SWITCH}=true` in the file, too. These
have other names, or are read without the switch, as the variables are that
[hold a key](tokens.md#keys-that-you-give):
"""

_IDLE = """\
## Accepted, without effect

TorchServe knows these; here they have no effect, and the log says so. A configuration that has them keeps working.
"""

# The first setting of each part.
_PARTS = {
    "inference_address": "Listeners",
    "max_connections": "Limits of a connection",
    "disable_token_authorization": "Tokens",
    "shutdown_timeout": "Shutdown and plug-ins",
    "model_store": "Models",
    "default_workers_per_model": "Workers",
    "metrics_mode": "Metrics and logs",
}

# The words for defaults that a factory makes.
_OWN_DEFAULTS = {
    "log_levels": "none",
    "models": "none",
    "python": "the interpreter of the server",
    "temp_directory": "the system's temporary directory",
}


def configuration_page() -> str:
    """Return the page as Markdown."""
    return "\n".join([_HEAD, *_settings(), "", _ENVIRONMENT, *_variables(), "", _IDLE, *_without_effect(), ""])


def _settings() -> Iterator[str]:
    for attribute in fields(ServerOptions):
        part = _PARTS.get(attribute.name)
        if part is not None:
            yield from ("", f"## {part}", "", *_head("setting", "meaning", "default"))
        yield _row((f"`{attribute.name}`", attribute.metadata["doc"], _default(attribute)))


def _variables() -> Iterator[str]:
    yield from _head("setting", "variable")
    for attribute in fields(ServerOptions):
        names = environment_names(attribute.name)
        if names != (f"TS_{attribute.name.upper()}",) or ALWAYS_READ & set(names):
            listed = ", ".join(f"`{name}`" for name in names) or "none"
            always = "; read without being told to" if ALWAYS_READ & set(names) else ""
            yield _row((f"`{attribute.name}`", listed + always))


def _without_effect() -> Iterator[str]:
    yield from _head("setting", "because")
    for key, reason in sorted(ACCEPTED_WITHOUT_EFFECT.items()):
        yield _row((f"`{key}`", reason))


def _default(attribute: Any) -> str:
    if isinstance(attribute.default, Factory):  # type: ignore[arg-type] # attrs types it as a function
        return _OWN_DEFAULTS[attribute.name]
    text = text_of(attribute.default)
    return "none" if text is None else f"`{text}`"


def _head(*titles: str) -> Iterable[str]:
    return (_row(titles), _row("---" for _ in titles))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(configuration_page())
