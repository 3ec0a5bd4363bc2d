# SPDX-License-Identifier: Apache-2.0
"""
Render ``docs/command_line.md``, the page of all sub-commands of ``twisted-serve``.

After a change of a sub-command, in the root of the repository::

    python -m docs.generators.command_line > docs/command_line.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator

import click

from twisted_serve.subcommands import NAMES, PROGRAM
from twisted_serve.subcommands.group import main
from twisted_serve.subcommands.outcomes import ExitStatus
from twisted_serve.subcommands.session import Session, with_server

_HEAD = """\
# Command line

<!-- Made by `python -m docs.generators.command_line > docs/command_line.md`: change the commands' own lines. -->

`twisted-serve` with flags starts and stops servers, as `torchserve` does: `twisted-serve --help` lists the flags, and
[Configuration](configuration.md) has the settings. With one of these words first, it operates servers:
"""

_FINDING = """\
## Which server is asked

A server of `twisted-serve` or `twistd` writes where it is, without any secret, into a file that only its user can
read: `<pid>.json` in `$XDG_RUNTIME_DIR/twisted_serve` or, without that, `.twisted_serve-<uid>` in the temporary
directory (`TMPDIR`). A command of the same user asks the only server that runs; of several, the one that was
started in the working directory. Otherwise it lists them, and `--pid` chooses one. The keys come from the server's
key file, each request with the one that it needs.

`--url` or `TS_URL` names another server: `http://host:port`, `https://host:port` or `unix:/path`. Its key comes
from `TS_KEY` or `--key`; keys of a key file are sent to the addresses of their server only. A key of a consumer,
`tsk_...`, that is mistyped is recognised before anything is sent.

The certificate of a server on this machine is compared with the file that the server uses. Any other must be one
that the system, or `--cacert`, trusts.
"""

_OUTPUT = """\
## Output

Standard output has the result alone; all else is on standard error. With `--json` the result is JSON. Colours, and
lines that change, are for terminals, and `NO_COLOR=1` switches them off. An error is one sentence on standard
error, that says what to do:

| status | when |
| --- | --- |
"""

_COMPLETION = """\
## Completion

```text
eval "$(twisted-serve completion bash)"        # in ~/.bashrc
eval "$(twisted-serve completion zsh)"         # in ~/.zshrc
twisted-serve completion fish | source         # in ~/.config/fish/config.fish
```

Words, options, kinds of keys and names of models are completed.
"""

_SHARED = """\
## Options of every command that asks a server

The commands below that have them end their usage with `[SERVER OPTIONS]`.
"""


# What an option without a word for it takes; click's own words differ between its versions.
_VALUES = {
    "integer": "N",
    "integer range": "N",
    "float": "NUMBER",
    "float range": "NUMBER",
    "file": "FILE",
    "text": "TEXT",
}


def command_line_page() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD, *_table(("word", "what it does"), _words()), "", _FINDING]
    lines += [
        _OUTPUT + "\n".join(_row((str(int(each)), each.meaning)) for each in ExitStatus),
        "",
        _COMPLETION,
        _SHARED,
    ]
    lines += _table(("option", "meaning"), _options(_shared()))
    for word in NAMES:
        lines += ["", f"## {word}", *_described([PROGRAM, word], _command(word))]
    return "\n".join([*lines, ""])


def _command(word: str) -> click.Command:
    context = click.Context(main)
    command = main.get_command(context, word)
    if command is None:
        raise KeyError(word)
    return command


def _words() -> Iterator[tuple[str, str]]:
    for word, (_module, _attribute, summary) in NAMES.items():
        yield f"[`{word}`](#{word})", summary


def _described(words: list[str], command: click.Command) -> Iterator[str]:
    yield from ("", _help(command))
    if isinstance(command, click.Group):
        for name, each in sorted(command.commands.items()):
            yield from ("", f"### {words[-1]} {name}", *_described([*words, name], each))
        return
    own = [each for each in command.params if each.name not in _shared_names() or not _asks_server(command)]
    usage = [*words, *(piece for each in own for piece in _usage(each))]
    if any(isinstance(each, click.Option) for each in own):
        usage.insert(len(words), "[OPTIONS]")
    if _asks_server(command):
        usage.append("[SERVER OPTIONS]")
    yield from ("", "```text", " ".join(usage), "```")
    options = list(_options(own))
    if options:
        yield from ("", *_table(("option", "meaning"), options))


def _usage(parameter: click.Parameter) -> list[str]:
    if isinstance(parameter, click.Option):
        return []
    name = parameter.metavar or (parameter.name or "").upper()
    if isinstance(parameter.type, click.Choice):
        name = "|".join(map(str, parameter.type.choices))
    return [name if parameter.required else f"[{name}]"]


def _help(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "")
    # What click is told not to wrap is shown as it is.
    return re.sub(r"\x08\n((?:.+\n?)+)", lambda block: f"```text\n{block[1].rstrip()}\n```", text).strip()


def _options(parameters: Iterable[click.Parameter]) -> Iterator[tuple[str, str]]:
    for each in parameters:
        if isinstance(each, click.Option) and not each.hidden:
            names = ", ".join(each.opts) + "".join(f", {name}" for name in each.secondary_opts)
            value = "" if each.is_flag else f" {each.metavar or _VALUES.get(each.type.name, 'VALUE')}"
            yield f"`{names}{value}`", " ".join([each.help or "", *_remarks(each)])


def _remarks(option: click.Option) -> Iterator[str]:
    if option.required:
        yield "Required."
    if option.show_default and not option.is_flag:
        yield f"Default: {option.default}."
    if option.envvar:
        yield f"Or the variable `{option.envvar}`."


def _shared() -> list[click.Option]:
    @click.command()
    @with_server
    def probe(session: Session) -> None:
        """Have the options, and nothing else."""

    return [each for each in probe.params if isinstance(each, click.Option)]


def _shared_names() -> set[str | None]:
    return {each.name for each in _shared()}


def _asks_server(command: click.Command) -> bool:
    return _shared_names() <= {each.name for each in command.params}


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [_row(titles), _row("---" for _ in titles), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(command_line_page())
