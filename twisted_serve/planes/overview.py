# SPDX-License-Identifier: Apache-2.0
"""
Show plug-ins the models, workers and settings of the server, without secrets.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted_serve.config.options import KEYS, SECRETS, ServerOptions
from twisted_serve.config.values import text_of
from twisted_serve.endpoints import Context, Model, Worker
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.scheduling.status import Ready


def shown_settings(options: ServerOptions) -> dict[str, str]:
    """Return the text of all settings that are set, except secrets."""
    texts = {key: text_of(getattr(options, key)) for key in KEYS - SECRETS}
    return {key: text for key, text in sorted(texts.items()) if text is not None}


def overview(catalogue: Catalogue, settings: Mapping[str, str]) -> Context:
    """Return an overview of the registered versions and their workers."""
    registry = catalogue.registry
    models = tuple(
        Model(
            name=version.name,
            version=version.version,
            default=registry.default_version(version.name) == version.version,
            handler=version.handler,
            loaded_at_startup=version.loaded_at_startup,
            workers=tuple(
                Worker(worker.worker_id, isinstance(worker.status, Ready)) for worker in pool.status().workers
            ),
        )
        for version, pool in catalogue
    )
    return Context(models, settings)
