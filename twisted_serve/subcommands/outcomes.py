# SPDX-License-Identifier: Apache-2.0
"""
Define the exit statuses of the sub-commands, and the errors that have them.
"""

from __future__ import annotations

from enum import IntEnum

import click


class ExitStatus(IntEnum):
    """
    The exit status of a sub-command.

    :ivar meaning: When a command has this status, for the documentation.
    """

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitStatus:
        """Make a status with its meaning."""
        made = int.__new__(cls, value)
        made._value_ = value
        made.meaning = meaning
        return made

    DONE = 0, "Done."
    FAILED = 1, "The server refused or failed, or a file cannot be read or written."
    USAGE = 2, "The command line is wrong."
    NO_SERVER = 3, "No server was found, or it cannot be reached."
    NOT_AUTHORIZED = 4, "The key is missing, wrong, expired or revoked, or does not allow it."
    INTERRUPTED = 130, "Interrupted, as with Ctrl-C."


class Failed(click.ClickException):
    """A command that failed; the message is one sentence for the user, with what to do."""

    exit_code = ExitStatus.FAILED


class NoServer(Failed):
    """There is no server to ask."""

    exit_code = ExitStatus.NO_SERVER


class NotAuthorized(Failed):
    """The server does not accept the key, or there is none."""

    exit_code = ExitStatus.NOT_AUTHORIZED
