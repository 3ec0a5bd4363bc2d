# SPDX-License-Identifier: Apache-2.0
"""
Define what to pack and the archive to make from it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from attrs import field, fields, frozen

from twisted_serve.archives.manifest import RUNTIMES
from twisted_serve.archives.names import version_flaw

#: The archive formats, under TorchServe's names.
FORMATS = ("default", "zip-store", "tgz", "no-archive")

#: The version of a model that is given none: the servers' default for a manifest without one.
DEFAULT_VERSION = "1.0"

_SUFFIXES = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}

#: A valid model or workflow name: the rule of TorchServe's archiver, stricter than the servers' rules.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]{0,254}")
NAME_EXPECTED = "letters, digits, '_', '-' and '.', a letter or digit first"


class ArchiverError(Exception):
    """The archive cannot be made; the message is the reason."""


def text_of(value: str | os.PathLike[str]) -> str:
    """Convert a path to text."""
    return os.fspath(value)


def optional_text(value: str | os.PathLike[str] | None) -> str | None:
    """Convert an optional path to text; an empty one counts as none, as in TorchServe."""
    return text_of(value) or None if value is not None else None


def patterns_of(value: str | Sequence[str | os.PathLike[str]] | None) -> tuple[str, ...]:
    """Convert a list, or comma-separated text, to a tuple of patterns."""
    each = value.split(",") if isinstance(value, str) else [text_of(path) for path in value or ()]
    return tuple(pattern.strip() for pattern in each if pattern.strip())


def check_text(name: str, value: str, pattern: re.Pattern[str], expected: str) -> None:
    """
    Check a value that every server must accept.

    :raise ArchiverError: if it does not match.
    """
    if pattern.fullmatch(value) is None:
        raise ArchiverError(f"The {name} is {value!r:.300}, expected {expected}.")


@frozen
class ModelArchiverConfig:
    """
    The configuration of a model archive; names, order and meaning of the fields are TorchServe's.

    :ivar handler: The name of a built-in handler, or a path, with or without ``.py``, with or without ``:function``.
    :ivar serialized_file: The weights.
    :ivar extra_files: Files, directories (included by their contents) and globs, as a list or comma-separated.
    :ivar export_path: The directory for the archive, created if necessary.
    :ivar force: Whether an existing archive may be replaced.
    :raise ArchiverError: for an invalid value.
    """

    model_name: str
    handler: str = field(converter=text_of)
    version: str = DEFAULT_VERSION
    serialized_file: str | None = field(default=None, converter=optional_text)
    model_file: str | None = field(default=None, converter=optional_text)
    extra_files: tuple[str, ...] = field(default=(), converter=patterns_of)
    runtime: str = "python"
    export_path: Path = field(factory=Path.cwd, converter=Path)
    archive_format: str = "default"
    force: bool = False
    requirements_file: str | None = field(default=None, converter=optional_text)
    config_file: str | None = field(default=None, converter=optional_text)

    def __attrs_post_init__(self) -> None:
        """Check the values that every server must accept."""
        check_text("model name", self.model_name, NAME, NAME_EXPECTED)
        if (flaw := version_flaw(self.version)) is not None:
            raise ArchiverError(f"The version is {self.version!r:.300}: {flaw}.")
        for name, value, choices in (
            ("runtime", self.runtime, RUNTIMES),
            ("archive format", self.archive_format, FORMATS),
        ):
            if value not in choices:
                raise ArchiverError(f"The {name} is {value!r:.300}, expected one of {', '.join(choices)}.")

    @property
    def target(self) -> Path:
        """The path of the archive."""
        return self.export_path / (self.model_name + _SUFFIXES[self.archive_format])

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ModelArchiverConfig:
        """
        Create a configuration from parsed command line arguments.

        :raise ArchiverError: for an invalid value.
        """
        given = {a.name: getattr(args, a.name, None) for a in fields(cls)}
        return cls(**{name: value for name, value in given.items() if value is not None})
