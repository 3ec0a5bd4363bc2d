# SPDX-License-Identifier: Apache-2.0
"""
Serve in this process, with the reactor that Twisted chooses.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from twisted.logger import ILogObserver, globalLogBeginner

from twisted_serve.command.run import MakeServer, Report, run_server
from twisted_serve.command.run_file import RunFile
from twisted_serve.config.load import LoadedOptions
from twisted_serve.eventloop.polling import without_log_context
from twisted_serve.system.account import protect_memory
from twisted_serve.system.garbage import keep_all

if TYPE_CHECKING:
    from twisted_serve.interfaces import IServeReactor


def serve(loaded: LoadedOptions, report: Report, make_server: MakeServer) -> int:
    """
    Run the server: install the reactor (epoll where available), then build the server on it.

    :param make_server: Makes the server; the modules that need the chosen reactor are imported by it.
    :return: The exit status.
    """
    protect_memory()
    from twisted.internet import reactor  # noqa: PLC0415 - importing it is choosing it

    without_log_context(cast("IServeReactor", reactor))

    def begin_logging(observer: ILogObserver) -> None:
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)

    return run_server(
        loaded,
        cast("IServeReactor", reactor),
        report,
        begin_logging,
        make_server,
        started=keep_all,
        run_file=RunFile(os.environ),
    )
