# SPDX-License-Identifier: Apache-2.0
"""
Fork workers from templates, and spawn them while there is no template.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from itertools import count

from twisted.internet.defer import Deferred, gatherResults

from twisted_serve.interfaces import IServeReactor, WorkerSpec
from twisted_serve.workers.process.launch import Launch, Launcher, import_environment, module_command
from twisted_serve.workers.process.process import Stream
from twisted_serve.workers.template.root_template import RootTemplate
from twisted_serve.workers.template.torch_detection import needs_torch
from twisted_serve.workers.template.version_template import VersionTemplate

#: Whether templates are supported on this platform: they watch their children in a way that only Linux offers.
POSSIBLE = sys.platform.startswith("linux")


class TemplateLauncher:
    """
    A launcher that forks workers from templates; see `Launcher`.

    :param environment: The environment of templates.
    :param otherwise: The launcher to use while there is no template.
    :param on_line: Called with ``"template"``, the stream and the text of each line that a template prints.
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
        self._numbers = count(1)
        self._bases: dict[bool, RootTemplate] = {}
        # Keyed by the spec's identity: the directory of an equal spec may have other content.
        self._families: dict[int, tuple[WorkerSpec, VersionTemplate]] = {}

    @staticmethod
    def can_begin(spec: WorkerSpec) -> bool:
        """Return whether workers of ``spec`` can be forked: they must use the server's interpreter and packages."""
        return POSSIBLE and spec.python == sys.executable and spec.packages is None

    def prepare(self) -> None:
        """Start the root template without torch; see `IWorkerProvider`."""
        if POSSIBLE:
            self._base(torch=False).link()

    def begin(self, launch: Launch) -> None:
        """Fork a worker from the template of its version; see `Launcher`."""
        spec = launch.spec
        if id(spec) not in self._families:
            family = VersionTemplate(self._reactor, spec, self._numbers, self._base(needs_torch(spec)), self._otherwise)
            self._families[id(spec)] = (spec, family)
        self._families[id(spec)][1].begin(launch)

    def forget(self, spec: WorkerSpec) -> None:
        """End the template of ``spec``."""
        _, family = self._families.pop(id(spec), (None, None))
        if family is not None:
            family.close()

    def stop(self) -> Deferred[None]:
        """End all templates; return a Deferred that fires when they are gone."""
        families, self._families = self._families, {}
        for _, family in families.values():
            family.close()
        return gatherResults([base.stop() for base in self._bases.values()]).addCallback(lambda _: None)

    def _base(self, torch: bool) -> RootTemplate:
        if torch not in self._bases:
            command = module_command(sys.executable, "twisted_serve.backend.template.root")
            if torch:
                command += ["--preload", "torch"]
            # With one thread: a process with more cannot be forked. Workers get their own OMP_NUM_THREADS.
            environment = {**import_environment(self._environment), "OMP_NUM_THREADS": "1"}
            self._bases[torch] = RootTemplate(
                self._reactor, command, environment, lambda stream, line: self._on_line("template", stream, line)
            )
        return self._bases[torch]
