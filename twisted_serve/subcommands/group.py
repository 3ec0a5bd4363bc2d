# SPDX-License-Identifier: Apache-2.0
"""
Group the sub-commands, import each when it runs, and turn its end into an exit status.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module

import click
from click.shell_completion import CompletionItem, shell_complete

from twisted_serve.subcommands import COMPLETION, NAMES, PROGRAM
from twisted_serve.subcommands.outcomes import ExitStatus
from twisted_serve.subcommands.output import printable_lines


class LazyGroup(click.Group):
    """The sub-commands of `NAMES`: a start imports one module, not all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the words in the order of the list."""
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a sub-command; ``None`` for another word."""
        if cmd_name not in NAMES:
            return None
        module, attribute, _summary = NAMES[cmd_name]
        command: click.Command = getattr(import_module(f"twisted_serve.subcommands.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the sub-command of a command line; suggest one for an unknown word."""
        if not ctx.resilient_parsing and args[0] not in NAMES:
            near = get_close_matches(args[0], NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"{PROGRAM} --help lists the sub-commands."
            ctx.fail(f"{args[0]!r} is no sub-command: {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries of the list, so that the help imports no sub-command."""
        with formatter.section("Commands"):
            formatter.write_dl([(word, summary) for word, (_module, _command, summary) in NAMES.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a sub-command, or a flag of TorchServe's command line."""
        if not incomplete.startswith("-"):
            found = NAMES.items()
            return [CompletionItem(word, help=line) for word, (_m, _c, line) in found if word.startswith(incomplete)]
        from twisted_serve.config.arguments import parser  # noqa: PLC0415 - only for this

        flags = parser().format_usage().replace("[", " ").replace("]", " ").split()
        return [CompletionItem(flag) for flag in dict.fromkeys(flags) if flag.startswith(incomplete)]


main = LazyGroup(name=PROGRAM, help="Serve PyTorch models, and operate their servers.")


def operate(words: Sequence[str]) -> int:
    """
    Run a sub-command; say its error in one sentence on stderr.

    :return: The exit status.
    """
    try:
        instruction = os.environ.get(COMPLETION)
        if instruction is not None:
            return shell_complete(main, {}, PROGRAM, COMPLETION, instruction)
        color = False if os.environ.get("NO_COLOR") else None
        result = main.main(list(words), prog_name=PROGRAM, standalone_mode=False, color=color)
        sys.stdout.flush()
        return int(result or ExitStatus.DONE)
    except click.UsageError as e:
        e.show()
        return ExitStatus.USAGE
    except click.ClickException as e:
        _say(e.format_message())
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # Python flushes the stream at its exit, and would say that it could not.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except OSError as e:
        _say(f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e))
        return ExitStatus.FAILED


def _say(message: str) -> None:
    click.echo(f"Error: {printable_lines(message)}", err=True)
