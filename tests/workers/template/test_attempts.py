# SPDX-License-Identifier: Apache-2.0
"""Tests that an exception while a template is asked for a worker leaves nothing of that worker."""

from __future__ import annotations

import os
import socket
from typing import Any
from unittest.mock import patch

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.template.forking_case import SPEC, ForkingTestCase
from twisted_serve.workers.process import connection
from twisted_serve.workers.template import launcher, link, process, version_template

STEPS: dict[str, tuple[Any, str]] = {
    "guess": (launcher, "needs_torch"),
    "version": (version_template.VersionTemplate, "__init__"),
    "environment": (version_template, "worker_environment"),
    "socket": (socket, "socketpair"),
    "pipe": (os, "pipe"),
    "reader": (process, "ProcessReader"),
    "fork": (link, "encode"),
    "load": (connection, "encode_apart"),
}


class AttemptTests(ForkingTestCase):
    """An exception at one step."""

    @given(
        step=st.sampled_from(sorted(STEPS)),
        error=st.sampled_from([OSError(24, "Too many open files"), OSError(36, "File name too long"), MemoryError()]),
        ready=st.booleans(),
        shares=st.booleans(),
    )
    def test_raises(self, step: str, error: Exception, ready: bool, shares: bool) -> None:
        """The worker fails to load, whether the template was ready or started later; the next one is forked."""
        self.setUp()
        spec = evolve(SPEC, share_weights=shares)
        if ready:
            self.provider.prepare()
            self.root()
        with patch.object(*STEPS[step], side_effect=error):
            worker = self.start(spec=spec)
            if not ready and self.reactor.roots:
                self.root()
        self.assertRegex(self.failed(worker).message, getattr(error, "strerror", "MemoryError|no memory"))
        self.provider.forget(spec)
        self.successResultOf(worker.stop(0.0)) if step != "load" else worker.stop(0.0)
        self.reactor.advance(0)
        for held in self.reactor.links:
            for descriptor in held.descriptors:
                os.close(descriptor)
            held.descriptors.clear()
            held.clear()
        another = self.start(9001)
        if step == "socket" and not ready:
            # There is no template, and there will be none for some time.
            self.assertEqual(len(self.reactor.spawned), 1)
        else:
            self.assertEqual(len(self.root().forks()), 1)
        self.assertNoResult(another.loaded)
        self.flushLoggedErrors()
