# SPDX-License-Identifier: Apache-2.0
"""
Validate the nested sections of ``model-config.yaml``.

The handler reads most of these sections, not the server.  Their known keys are checked anyway, so that mistakes are
reported when the model is registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from twisted_serve.archives.fields import attributes_of, boolean, integer, mapping, section, word, wrong


@frozen
class Torchrun:
    """
    The options with which ``torchrun`` starts a worker of several processes.

    :ivar nproc_per_node: Number of processes, and so of GPUs, per worker.
    :ivar omp_threads: ``OMP_NUM_THREADS`` of each process.
    :ivar rdzv_endpoint: The rendezvous endpoint; ``None`` lets torchrun choose one.
    """

    nnodes: int = integer("torchrun.nnodes", 1, 1)
    nproc_per_node: int = integer("torchrun.nproc-per-node", 1, 1)
    rdzv_backend: str = word("torchrun.rdzv-backend", "c10d")
    rdzv_endpoint: str | None = word("torchrun.rdzv-endpoint")
    rdzv_conf: str | None = word("torchrun.rdzv-conf")
    monitor_interval: int = integer("torchrun.monitor-interval", 1, 5)
    node_rank: int = integer("torchrun.node-rank", 0, 0)
    omp_threads: int = integer("torchrun.OMP_NUMBER_THREADS", 1, 1)

    @classmethod
    def read(cls, value: object) -> Torchrun:
        """
        Parse the section.

        :raise ValueError: as `section`.
        """
        return section(cls, "torchrun", value)


@frozen
class _Compile:
    enable: bool | None = boolean("pt2.compile.enable")
    backend: str | None = word("pt2.compile.backend")


@frozen
class _Export:
    aot_compile: bool | None = boolean("pt2.export.aot_compile")


@frozen
class _Handler:
    profile: bool | None = boolean("handler.profile")


@frozen
class _MicroBatching:
    micro_batch_size: int | None = integer("micro_batching.micro_batch_size", 1)


@frozen
class _Parallelism:
    preprocess: int | None = integer("micro_batching.parallelism.preprocess", 1)
    inference: int | None = integer("micro_batching.parallelism.inference", 1)
    postprocess: int | None = integer("micro_batching.parallelism.postprocess", 1)


def check_pt2(value: object) -> None:
    """
    Check the section ``pt2``, for ``torch.compile`` and ``torch.export``; the older form is a backend's name alone.

    :raise ValueError: if the section or one of its keys has a value of the wrong type.
    """
    if isinstance(value, str):
        return
    if not isinstance(value, dict):
        raise wrong("pt2", value, "a mapping, or the name of a backend")
    for name, declared in (("compile", _Compile), ("export", _Export)):
        if value.get(name) is not None:
            section(declared, f"pt2.{name}", value[name])


def check_handler(value: object) -> None:
    """
    Check the section ``handler``; all keys but ``profile`` are left to the handler.

    :raise ValueError: if the section is not a mapping, or ``profile`` has a value of the wrong type.
    """
    section(_Handler, "handler", value)


def check_micro_batching(value: object) -> None:
    """
    Check the section ``micro_batching``.

    :raise ValueError: if the section or one of its keys has a value of the wrong type.
    """
    section(_MicroBatching, "micro_batching", value)
    parallelism = mapping("micro_batching", value).get("parallelism")
    if parallelism is not None:
        section(_Parallelism, "micro_batching.parallelism", parallelism)


#: Validators of the sections that the handler reads.
CHECKS = {"pt2": check_pt2, "handler": check_handler, "micro_batching": check_micro_batching}


def unsupported_keys(torchrun: Mapping[str, Any]) -> list[str]:
    """List the keys of a ``torchrun`` section that the server does not support."""
    return sorted(torchrun.keys() - attributes_of(Torchrun).keys())
