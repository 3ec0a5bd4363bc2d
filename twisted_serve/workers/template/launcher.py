# SPDX-License-Identifier: Apache-2.0
"""
This module implements workers that are forked from templates: which can be, and from which template.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, gatherResults

from twisted_serve.interfaces import IServeReactor, WorkerSpec
from twisted_serve.workers.process.launch import Launch, Launcher, import_environment, module_command
from twisted_serve.workers.process.process import Stream
from twisted_serve.workers.template.births import Births
from twisted_serve.workers.template.root_template import RootTemplate
from twisted_serve.workers.template.torch_detection import needs_torch
from twisted_serve.workers.template.version_template import VersionTemplate

#: Whether templates are possible here: they watch what they fork as only Linux lets them.
POSSIBLE = sys.platform.startswith("linux")


class TemplateLauncher:
    """
    Starts workers by forking; see `Launcher`.

    :param environment: That of templates.
    :param otherwise: How workers begin while there is no template.
    :param on_line: Gets what templates print: whose name it is, the stream, the line.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        environment: Mapping[str, str],
        otherwise: Launcher,
        on_line: Callable[[str, Stream, str], None],
    ) -> None:
        self._reactor = reactor
        self._environment = environment
        self._otherwise = otherwise
        self._on_line = on_line
        self._births = Births(reactor)
        self._bases: dict[bool, RootTemplate] = {}
        # By the very spec: an equal one may be of a directory whose content has changed.
        self._families: dict[int, tuple[WorkerSpec, VersionTemplate]] = {}

    @staticmethod
    def can_begin(spec: WorkerSpec) -> bool:
        """Say whether workers of ``spec`` can be forked: if they run in this very interpreter, with its packages."""
        return POSSIBLE and spec.python == sys.executable and spec.packages is None

    def prepare(self) -> None:
        """See `IWorkerProvider`."""
        if POSSIBLE:
            self._base(torch=False).link()

    def begin(self, launch: Launch) -> None:
        """See `Launcher`."""
        spec = launch.spec
        if id(spec) not in self._families:
            family = VersionTemplate(self._reactor, spec, self._base(needs_torch(spec)), self._births, self._otherwise)
            self._families[id(spec)] = (spec, family)
        self._families[id(spec)][1].begin(launch)

    def forget(self, spec: WorkerSpec) -> None:
        """Keep nothing for ``spec``."""
        _, family = self._families.pop(id(spec), (None, None))
        if family is not None:
            family.close()

    def stop(self) -> Deferred[None]:
        """End all templates; fire when they are gone."""
        families, self._families = self._families, {}
        for _, family in families.values():
            family.close()
        return gatherResults([base.stop() for base in self._bases.values()]).addCallback(lambda _: None)

    def _base(self, torch: bool) -> RootTemplate:
        if torch not in self._bases:
            command = module_command(sys.executable, "twisted_serve.backend.template.root")
            if torch:
                command += ["--preload", "torch"]
            # With one thread: what has more cannot be forked.  Workers get their own number.
            environment = {**import_environment(self._environment), "OMP_NUM_THREADS": "1"}
            self._bases[torch] = RootTemplate(
                self._reactor, command, environment, lambda stream, line: self._on_line("template", stream, line)
            )
        return self._bases[torch]
