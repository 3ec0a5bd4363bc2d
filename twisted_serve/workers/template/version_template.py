# SPDX-License-Identifier: Apache-2.0
"""
Share the memory that a handler's ``initialize`` fills between the workers of one model version.

The first worker loads while the others wait. When it has loaded it reports whether it can be forked. If it can, it has
become the template of all others; if not, each of them loads for itself. If it fails to load, the waiting workers fail
with the same error.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.errors import WorkerFailed
from twisted_serve.interfaces import WorkerSpec
from twisted_serve.workers.process.launch import Launch, Launcher, attempt
from twisted_serve.workers.template.births import Births
from twisted_serve.workers.template.link import TemplateLink
from twisted_serve.workers.template.process import ForkedProcess
from twisted_serve.workers.template.root_template import RootTemplate

# Seconds that a template without workers is kept: long enough for a restart of the last worker, and short enough that
# a model scaled to zero soon uses no memory.
LINGER = 60.0


class VersionTemplate:
    """
    A launcher for the workers of one model version, and their template once the first has loaded.

    :param base: The root template; the first worker, and each worker that loads for itself, is forked from it.
    :param otherwise: The launcher to use while there is no root template.
    """

    _log = Logger("twisted_serve.workers")

    def __init__(
        self, clock: IReactorTime, spec: WorkerSpec, base: RootTemplate, births: Births, otherwise: Launcher
    ) -> None:
        self._clock = clock
        self._spec = spec
        self._base = base
        self._births = births
        self._otherwise = otherwise
        self._shares = spec.share_weights
        self._first: Launch | None = None
        self._waiting: list[Launch] = []
        self._template: TemplateLink | None = None
        self._members = 0
        self._lingering: IDelayedCall | None = None
        self._closed = False

    def begin(self, launch: Launch) -> None:
        """Start a worker from the best template there is; see `Launcher`."""
        self._members += 1
        self._stay()
        launch.worker.lost.addCallback(self._one_less)
        self._begin(launch)

    def close(self) -> None:
        """End the template: no more workers will be started."""
        self._closed = True
        self._let_template_go()

    def _let_template_go(self) -> None:
        self._stay()
        template, self._template = self._template, None
        if template is not None:
            template.close()

    def template_ready(self, link: TemplateLink) -> None:
        """Abort the link, a protocol violation; see `TemplateOwner`."""
        link.abort("it says what only the first template says")

    def template_alone(self, link: TemplateLink, reason: str) -> None:
        """Have each worker load for itself; see `TemplateOwner`."""
        self._shares = False
        self._log.info(
            "Each worker of {name} {version} loads for itself, the first cannot be forked: {reason}",
            name=self._spec.load.model_name,
            version=self._spec.load.model_version,
            reason=reason,
        )
        self._decided()

    def template_divided(self, link: TemplateLink, heir: ForkedProcess) -> None:
        """Fork the waiting workers from the first; see `TemplateOwner`."""
        if self._closed:
            link.close()
            return
        self._template = link
        heir.launch.worker.shares_weights = True
        self._decided()

    def template_lost(self, link: TemplateLink, why: str) -> None:
        """Have the next worker load again; see `TemplateOwner`."""
        if link is self._template:
            self._template = None
            self._log.warn(
                "The template of {name} {version} has ended, and its workers with it; the next worker loads again.",
                name=self._spec.load.model_name,
                version=self._spec.load.model_version,
            )

    def _begin(self, launch: Launch) -> None:
        if self._template is not None and self._template.is_open:
            self._births.from_model(self._template, launch)
        elif self._first is not None:
            self._waiting.append(launch)
        elif self._shares and _can_divide(launch):
            self._begin_first(launch)
        else:
            self._base.link().addCallback(self._begin_alone, launch)

    def _begin_alone(self, link: TemplateLink | None, launch: Launch) -> None:
        if not launch.worker.waiting:
            return
        with attempt(launch.worker):
            if link is None:
                self._otherwise.begin(launch)
            else:
                self._births.from_base(link, launch)

    def _begin_first(self, launch: Launch) -> None:
        self._first = launch
        launch.worker.loaded.addErrback(self._first_failed, launch)
        self._base.link().addCallback(self._fork_first, launch)

    def _fork_first(self, link: TemplateLink | None, launch: Launch) -> None:
        if not launch.worker.waiting:
            return
        if link is None:
            with attempt(launch.worker):
                self._otherwise.begin(launch)
            self._decided()
        else:
            with attempt(launch.worker):
                self._births.first(link, launch, self)

    def _first_failed(self, failure: Failure, launch: Launch) -> Failure:
        if launch is self._first:
            waiting = self._let_go()
            error = failure.value
            for each in waiting:
                if not each.worker.waiting:
                    continue
                if launch.worker.stopping or not isinstance(error, WorkerFailed):
                    with attempt(each.worker):
                        self._begin(each)
                else:
                    each.worker.fail_to_begin(error.message, error.status)
        return failure

    def _decided(self) -> None:
        """Start the waiting workers: it is known now whether there is a template."""
        for each in self._let_go():
            if each.worker.waiting:
                with attempt(each.worker):
                    self._begin(each)

    def _let_go(self) -> list[Launch]:
        self._first = None
        self._waiting, waiting = [], self._waiting
        return waiting

    def _one_less(self, how: str) -> str:
        self._members -= 1
        if not self._members and self._template is not None and not self._closed:
            self._lingering = self._clock.callLater(LINGER, self._linger_over)
        return how

    def _linger_over(self) -> None:
        self._lingering = None
        self._let_template_go()

    def _stay(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None


def _can_divide(launch: Launch) -> bool:
    """Return whether a worker may be forkable: it uses no GPU and its handler runs no event loop."""
    return launch.placement.gpu_id is None and not launch.load.asynchronous
