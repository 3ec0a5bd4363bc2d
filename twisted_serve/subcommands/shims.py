# SPDX-License-Identifier: Apache-2.0
"""
Write TorchServe's commands: ``twisted-serve shims``.
"""

from __future__ import annotations

import click

from twisted_serve.command.shims import shims as write


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def shims(words: tuple[str, ...]) -> int:
    """Write torchserve and the archivers as commands of this installation."""
    return write(words)
