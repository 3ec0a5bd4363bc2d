# SPDX-License-Identifier: Apache-2.0
"""
Group the sub-commands, and import each when it runs.
"""

from __future__ import annotations

from importlib import import_module

import click

from twisted_serve.subcommands import NAMES


class LazyGroup(click.Group):
    """The sub-commands of `NAMES`: a start imports one module, not all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the words in the order of the list."""
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a sub-command; ``None`` for another word."""
        if cmd_name not in NAMES:
            return None
        module, attribute = NAMES[cmd_name]
        command: click.Command = getattr(import_module(f"twisted_serve.subcommands.{module}"), attribute)
        return command


main = LazyGroup(name="twisted-serve", help="Serve PyTorch models, and operate their servers.")
