# SPDX-License-Identifier: Apache-2.0
"""
Turn a worker that has loaded its model into a template for the other workers of the version, if that is safe.

This is done in the first worker of a model version. After loading, the process forks: the child
continues as the worker, the parent becomes the template and forks further workers, which share the
loaded model's memory.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

from twisted_serve.backend.channel import Channel
from twisted_serve.backend.process import end_children_at_exit, enter_model_dir, inherited_socket, set_name
from twisted_serve.backend.service import Service
from twisted_serve.backend.template.fork_safety import (
    Safety,
    descriptors,
    one_thread,
    reseed,
    set_threads,
    wanted_threads,
)
from twisted_serve.backend.template.loop import Birth, Template
from twisted_serve.wire.codec import encode
from twisted_serve.wire.control import Alone

#: The name of template processes in ``ps -o comm``.
TEMPLATE_NAME = "ts-template"


def take_output(birth: Birth) -> None:
    """Redirect stdout and stderr to the pipes of this worker."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(birth.descriptors[name], number)
        os.close(birth.descriptors[name])


def flush() -> None:
    """Flush stdout and stderr, so that buffered output is not printed by several processes."""
    sys.stdout.flush()
    sys.stderr.flush()


class Divisible:
    """
    The steps of such a worker before and after loading; see `twisted_serve.backend.session.serve`.

    :param birth: The fork request and descriptors, with a ``control`` end.
    :param connection: The worker's socket.
    :param output: The descriptors of the template's stdout and stderr.
    """

    def __init__(self, birth: Birth, connection: socket.socket, output: tuple[int, int]) -> None:
        self._birth = birth
        self._connection = connection
        self._output = output
        self._control = inherited_socket(birth.descriptors["control"])
        self._loading = ExitStack()
        self._has_chosen: Callable[[], bool] = bool
        self._safety = Safety(set())

    def enter(self, model_dir: str) -> None:
        """
        Prepare the process for loading the model.

        :raise OSError: if the model's directory cannot be entered.
        """
        enter_model_dir(model_dir)
        self._safety = Safety(descriptors())
        self._has_chosen = self._loading.enter_context(one_thread())

    def settle(self, service: Service, channel: Channel) -> Channel:
        """Fork if that is safe; return in each worker, with its channel."""
        self._loading.close()
        threads = None if self._has_chosen() else wanted_threads()
        objection = self._safety.objection(service.handler)
        if objection is None:
            try:
                channel = self._divide(service, channel)
            except ConnectionError:
                raise
            except OSError as e:
                objection = f"it cannot be forked ({e.strerror})"
        if objection is not None:
            self._control.sendall(encode(Alone(objection)))
            self._control.close()
            self._close_output()
        set_threads(threads)
        return channel

    def _divide(self, service: Service, channel: Channel) -> Channel:
        flush()
        gc.collect()
        # These objects live forever; a garbage collection would write to their pages and copy them.
        gc.freeze()
        template = Template(self._control)
        if template.fork(self._birth.fork.number):
            self._close_output()
        else:
            channel = self._be_template(template)
            service.move_to(channel)
        end_children_at_exit()
        reseed()
        return channel

    def _be_template(self, template: Template) -> Channel:
        """Run the template; return in each worker that it forks."""
        set_name(TEMPLATE_NAME)
        self._connection.close()
        for descriptor, number in zip(self._output, (1, 2), strict=True):
            os.dup2(descriptor, number)
        self._close_output()
        birth = template.serve()
        take_output(birth)
        set_name(birth.fork.name)
        channel = Channel(inherited_socket(birth.descriptors["frames"]))
        # Skip ``LoadModel``: the model is loaded already.
        channel.receive()
        return channel

    def _close_output(self) -> None:
        for descriptor in self._output:
            os.close(descriptor)
