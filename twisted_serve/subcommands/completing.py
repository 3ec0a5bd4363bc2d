# SPDX-License-Identifier: Apache-2.0
"""
Complete words in a shell: print the script of a shell, and the values that are cheap to find.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from twisted_serve.subcommands import COMPLETION, PROGRAM
from twisted_serve.subcommands.outcomes import Failed
from twisted_serve.subcommands.output import Output
from twisted_serve.subcommands.session import Choice, Session

# Seconds that a shell may wait for a server.
_PATIENCE = 1.0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print the completion script of a shell.

    \b
    bash:  eval "$(twisted-serve completion bash)"                    in ~/.bashrc
    zsh:   eval "$(twisted-serve completion zsh)"                     in ~/.zshrc
    fish:  twisted-serve completion fish | source                     in ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise Failed(f"This version of click cannot complete for {shell}.")
    from twisted_serve.subcommands.group import main  # noqa: PLC0415 - the group imports its commands

    click.echo(found(main, {}, PROGRAM, COMPLETION).source())


def model_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the models of the server that begin with ``incomplete``; none if it cannot be asked."""
    said = context.params
    session = Session(Choice(said.get("url"), said.get("key"), said.get("pid"), _PATIENCE), Output())
    try:
        listed = session.call("management", "GET", "/models", query={"limit": 100}).json()
        names = [str(each["modelName"]) for each in listed["models"]]
    except (click.ClickException, LookupError, TypeError):
        return []
    finally:
        session.close()
    return [name for name in names if name.startswith(incomplete)]
