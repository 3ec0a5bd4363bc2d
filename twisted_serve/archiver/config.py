# SPDX-License-Identifier: Apache-2.0
"""
This module implements what the archiver is told: which files make up a model, and which archive to make of them.
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

#: The forms of an archive, the predecessor's words for them.
FORMATS = ("default", "zip-store", "tgz", "no-archive")

_SUFFIXES = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}

#: What a model or workflow may be called: the rule of TorchServe's archiver, narrower than the servers'.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]{0,254}")
NAME_EXPECTED = "letters, digits, '_', '-' and '.', a letter or digit first"


class ArchiverError(Exception):
    """No archive can be made of this; the text says why."""


def text_of(value: str | os.PathLike[str]) -> str:
    """Take a path."""
    return os.fspath(value)


def optional_text(value: str | os.PathLike[str] | None) -> str | None:
    """Take a path; an empty one is none, as always for the predecessor."""
    return text_of(value) or None if value is not None else None


def patterns_of(value: str | Sequence[str | os.PathLike[str]] | None) -> tuple[str, ...]:
    """Take a list, or text with commas in it."""
    each = value.split(",") if isinstance(value, str) else [text_of(path) for path in value or ()]
    return tuple(pattern.strip() for pattern in each if pattern.strip())


def check_text(name: str, value: str, pattern: re.Pattern[str], expected: str) -> None:
    """
    Refuse a value that no server would take.

    :raise ArchiverError: for it.
    """
    if pattern.fullmatch(value) is None:
        raise ArchiverError(f"The {name} is {value!r:.300}, expected {expected}.")


@frozen
class ModelArchiverConfig:
    """
    What to pack; name, order and meaning of the fields are the predecessor's.

    :ivar handler: The name of a built-in handler; or a path, with or without ``.py``, with or without ``:function``.
    :ivar serialized_file: The weights.
    :ivar extra_files: Files, directories (of which the content goes in) and globs, as a list or with commas between.
    :ivar export_path: The directory that the archive is put into; it is made if need be.
    :ivar force: Whether an archive that is there may be replaced.
    :raise ArchiverError: for a value that cannot be.
    """

    model_name: str
    handler: str = field(converter=text_of)
    version: str
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
        """Refuse what no server would take."""
        check_text("model name", self.model_name, NAME, NAME_EXPECTED)
        if (flaw := version_flaw(self.version)) is not None:
            raise ArchiverError(f"The version is {self.version!r:.300}: {flaw}.")
        for name, value, words in (
            ("runtime", self.runtime, RUNTIMES),
            ("archive format", self.archive_format, FORMATS),
        ):
            if value not in words:
                raise ArchiverError(f"The {name} is {value!r:.300}, expected one of {', '.join(words)}.")

    @property
    def target(self) -> Path:
        """The archive that is to be made."""
        return self.export_path / (self.model_name + _SUFFIXES[self.archive_format])

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ModelArchiverConfig:
        """
        Take what a command line said.

        :raise ArchiverError: for a value that cannot be.
        """
        said = {a.name: getattr(args, a.name, None) for a in fields(cls)}
        return cls(**{name: value for name, value in said.items() if value is not None})
