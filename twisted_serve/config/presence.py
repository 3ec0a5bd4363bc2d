# SPDX-License-Identifier: Apache-2.0
"""
Check that the directories and files named by settings exist on this machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from twisted_serve.config.arguments import CommandLine
from twisted_serve.config.options import ServerOptions

# Settings that name files which a server reads at start.
_FILES = (
    "log_config",
    "metrics_config",
    "metrics_token_file",
    "token_management_key_file",
    "token_inference_key_file",
    "token_api_key_file",
    "keystore",
    "certificate_file",
    "private_key_file",
    "client_ca_file",
)


def missing_flags(arguments: CommandLine, cwd: Path) -> Iterator[str]:
    """Yield an error for each missing file that only the command line can name, in TorchServe's words."""
    for flag, path in (("--log-config", arguments.log_config), ("--cpp-log-config", arguments.cpp_log_config)):
        if path is not None and not os.path.isfile(cwd / path):
            yield f"{flag} file not found: {(cwd / path).resolve()}"


def missing_directories(arguments: CommandLine, options: ServerOptions, texts: Mapping[str, str]) -> Iterator[str]:
    """
    Yield an error for each missing directory that a server cannot start without, in TorchServe's words.

    As with TorchServe, a workflow store has to exist only if the command line names it.

    :param texts: The settings as they were written.
    """
    if not os.path.isdir(options.temp_directory):
        yield f"Invalid temp directory: {options.temp_directory}, please check TEMP environment variable."
    if options.model_store is None:
        return
    if not os.path.isdir(options.model_store):
        yield f"--model-store directory not found: {texts['model_store']}"
    flagged = arguments.workflow_store is not None
    if flagged and options.workflow_store is not None and not os.path.isdir(options.workflow_store):
        yield f"--workflow-store directory not found: {texts['workflow_store']}"


def missing_files(options: ServerOptions) -> Iterator[str]:
    """Yield an error for each other file or program that a server would need at its start and that is unusable here."""
    for key in _FILES:
        path: Path | None = getattr(options, key)
        if path is not None and (reason := unreadable(path)) is not None:
            yield f"{key} {path}: {reason}"
    if not options.disable_token_authorization and not os.path.isdir(options.token_key_file.parent):
        yield f"token_key_file {options.token_key_file}: there is no directory {options.token_key_file.parent}"
    if shutil.which(options.python) is None:
        yield f"python {options.python}: there is no such program"


def unreadable(path: Path) -> str | None:
    """Return why a file cannot be read, or ``None``; a path that is not a regular file (a pipe, say) is not opened."""
    if not os.path.isfile(path):
        return "there is no such file"
    return None if os.access(path, os.R_OK) else "not allowed to read it"
