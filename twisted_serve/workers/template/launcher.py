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
    :param fallback: The launcher to use while there is no template.
    :param on_line: Called with ``"template"``, the stream and the text of each line that a template prints.
    """

    def __init__(
        self,
        reactor: IServeReactor,
        environment: Mapping[str, str],
        fallback: Launcher,
        on_line: Callable[[str, Stream, str], None],
    ) -> None:
        self._reactor = reactor
        self._environment = environment
        self._fallback = fallback
        self._on_line = on_line
        self._numbers = count(1)
        self._roots: dict[bool, RootTemplate] = {}
        # Keyed by the spec's identity: the directory of an equal spec may have other content.
        self._templates: dict[int, tuple[WorkerSpec, VersionTemplate]] = {}

    @staticmethod
    def can_begin(spec: WorkerSpec) -> bool:
        """Return whether workers of ``spec`` can be forked: they must use the server's interpreter and packages."""
        return POSSIBLE and spec.python == sys.executable and spec.packages is None

    def prepare(self) -> None:
        """Start the root template without torch; see `IWorkerProvider`."""
        if POSSIBLE:
            self._root(torch=False).link()

    def begin(self, launch: Launch) -> None:
        """Fork a worker from the template of its version; see `Launcher`."""
        spec = launch.spec
        if id(spec) not in self._templates:
            template = VersionTemplate(
                self._reactor, spec, self._numbers, self._root(needs_torch(spec)), self._fallback
            )
            self._templates[id(spec)] = (spec, template)
        self._templates[id(spec)][1].begin(launch)

    def forget(self, spec: WorkerSpec) -> None:
        """End the template of ``spec``."""
        _, template = self._templates.pop(id(spec), (None, None))
        if template is not None:
            template.close()

    def stop(self) -> Deferred[None]:
        """End all templates; return a Deferred that fires when they are gone."""
        templates, self._templates = self._templates, {}
        for _, template in templates.values():
            template.close()
        return gatherResults([root.stop() for root in self._roots.values()]).addCallback(lambda _: None)

    def _root(self, torch: bool) -> RootTemplate:
        if torch not in self._roots:
            command = module_command(sys.executable, "twisted_serve.backend.template.root")
            if torch:
                command += ["--preload", "torch"]
            # With one thread: a process with more cannot be forked. Workers get their own OMP_NUM_THREADS.
            environment = {**import_environment(self._environment), "OMP_NUM_THREADS": "1"}
            self._roots[torch] = RootTemplate(
                self._reactor, command, environment, lambda stream, line: self._on_line("template", stream, line)
            )
        return self._roots[torch]
