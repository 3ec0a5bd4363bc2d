# SPDX-License-Identifier: Apache-2.0
"""
Make the settings of a server for a handler's author.

No file and no variable is read: what serves a handler at one place serves it everywhere.
"""

from __future__ import annotations

import json
import re
from logging import LogRecord
from pathlib import Path
from typing import Any

from twisted_serve.config.load import LoadedOptions
from twisted_serve.config.options import ServerOptions

#: Minutes: the keys of a server that listens to this machine only, and has a new one at each start, last a week.
KEYS_LAST = 7 * 24 * 60.0

#: The subdirectory of the models' directories.
MODELS = "models"

# Seconds that a request has when the author ends the server.
_LEAVING = 2.0


def loaded_options(directory: Path, author: Path, port: int, tokens: bool) -> LoadedOptions:
    """
    Return the settings of a server at one port of this machine, with everything it writes in one directory.

    :param directory: A directory of this server; its subdirectory `MODELS` has the model's directories.
    :param author: The directory of the handler.
    :param port: 0 for any free one.
    """
    address = f"http://127.0.0.1:{port}"
    log_config = directory / "logging.json"
    log_config.write_text(json.dumps(_logging(directory / MODELS, author)))
    options = ServerOptions(
        inference_address=address,
        management_address=address,
        metrics_address=address,
        enable_grpc="false",
        disable_token_authorization=not tokens,
        token_key_file=directory / "key_file.json",
        token_expiration_min=KEYS_LAST,
        temp_directory=directory,
        disable_system_metrics=True,
        log_files=False,
        log_config=log_config,
        log_level="warn",
        # What the planes log of a failure, the author is told.
        log_levels={"MODEL_LOG": "info", "ACCESS_LOG": "info", "twisted_serve.planes": "critical"},
        shutdown_timeout=_LEAVING,
    )
    return LoadedOptions(options, {}, ())


# What a worker prints of itself at its start, for programs that look for it.
_OF_WORKERS = re.compile(r"\[PID\][0-9]+|Torch worker started\.")


class ForAuthors:
    """
    Show the author's files in tracebacks, for the copies that are served, and leave out what workers say of themselves.

    A filter of Python's logging.

    :param copies: The directory of the models' directories.
    :param author: The directory of the handler.
    """

    def __init__(self, copies: str, author: str) -> None:
        self._author = Path(author)
        self._copy = re.compile(re.escape(copies) + r"/[0-9]+/([^\"\s]+)")

    def filter(self, record: LogRecord) -> bool:
        """Return whether a record is shown; replace the path of each copy whose original is the author's."""
        text = str(record.msg)
        record.msg = self._copy.sub(self._original, text)
        return not (record.name == "MODEL_LOG" and _OF_WORKERS.fullmatch(text))

    def _original(self, found: re.Match[str]) -> str:
        original = self._author / found[1]
        return str(original) if original.exists() else found[0]


def _logging(copies: Path, author: Path) -> dict[str, Any]:
    """Return a configuration: what a handler prints, and requests, as they are; of the server, what is wrong."""
    handlers = {
        name: {
            "class": "logging.StreamHandler",
            "formatter": name,
            "filters": ["authors"],
            "stream": "ext://sys.stdout",
        }
        for name in ("plain", "level")
    }
    plain = {"handlers": ["plain"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(message)s"}, "level": {"format": "%(levelname)s: %(message)s"}},
        "filters": {"authors": {"()": f"{__name__}.ForAuthors", "copies": str(copies), "author": str(author)}},
        "handlers": handlers,
        "loggers": {"MODEL_LOG": plain, "ACCESS_LOG": plain},
        "root": {"handlers": ["level"], "level": "WARNING"},
    }
