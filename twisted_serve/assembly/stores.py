# SPDX-License-Identifier: Apache-2.0
"""
Make the sources of models' files: the stores of archives, and the installer of packages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from twisted_serve.archives.bounded_agent import BoundedAgent
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.fetch import Fetcher, FetchLimits
from twisted_serve.archives.intake import Intake
from twisted_serve.archives.store import ModelStore
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.config.options import ServerOptions
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.interfaces import IServeReactor
from twisted_serve.system.account import Account
from twisted_serve.workers.packages import Installer
from twisted_serve.workflows.store import WorkflowStore


def stores_of(
    reactor: IServeReactor,
    options: ServerOptions,
    work_dir: Path,
    defer_to_thread: DeferToThread,
    account: Account | None,
) -> tuple[ModelStore, WorkflowStore]:
    """Make the stores of models and of workflows; both may use one directory, so they share a fetcher."""
    if account is not None:
        os.chmod(work_dir, 0o711)  # noqa: S103 - its content is closed to others, or for the workers' user
    fetcher = Fetcher(
        BoundedAgent(reactor),
        reactor,
        AllowedUrls(options.allowed_urls),
        FetchLimits(max_size=options.max_archive_size, timeout=options.download_timeout),
        defer_to_thread,
    )
    limits = UnpackLimits(max_size=options.max_archive_size, max_ratio=int(options.max_archive_ratio))
    intake = Intake(work_dir, fetcher, limits, defer_to_thread, _ignore if account is None else account.allow_read)
    return (
        ModelStore(options.model_store, intake),
        WorkflowStore(options.workflow_store or options.model_store, intake),
    )


def installer_of(
    reactor: IServeReactor,
    options: ServerOptions,
    environment: Mapping[str, str],
    work_dir: Path,
    defer_to_thread: DeferToThread,
    account: Account | None,
) -> Installer:
    """Make the installer of the packages that models need."""
    return Installer(
        reactor,
        work_dir,
        options.python,
        environment,
        options.install_py_dep_timeout,
        defer_to_thread,
        _ignore if account is None else account.allow_write,
    )


def _ignore(_directory: Path) -> None:
    """Leave a new directory as it is: workers run as the server's user."""
