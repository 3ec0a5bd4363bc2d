# SPDX-License-Identifier: Apache-2.0
"""
Register, scale, describe and unregister models for the application.

The application is trusted: ``enable_model_api`` and ``allowed_urls`` do not apply.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attrs import frozen

from twisted_serve.archives.locating import Source
from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.archives.store import ModelArchive
from twisted_serve.errors import BadRequest
from twisted_serve.inprocess.arguments import require_number, require_optional_texts, require_texts
from twisted_serve.models.settings import MOST_WORKERS, RequestedSettings
from twisted_serve.models.version import ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.management import ManagementPlane
from twisted_serve.planes.registrar import Registrar, Registration

# ``myapp.models``, ``myapp.models:Digits``: what can be imported, not a file.
_IMPORTABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*)?")

# The optional numbers of a registration, with their minimum; milliseconds for the delay, seconds for the timeouts.
_SETTINGS = {"batch_size": 1, "max_batch_delay": 0, "response_timeout": 1, "startup_timeout": 1}
_MOST = (1 << 31) - 1

# The directories of Python itself and of installed packages, which a worker has in its own import path.
_OF_PYTHON = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@frozen
class Registered:
    """The version of a model that has been registered."""

    name: str
    version: str


def import_path(path: Iterable[str]) -> tuple[str, ...]:
    """Return the absolute directories of an import path that are not Python's own, in order."""
    absolute = dict.fromkeys(os.path.abspath(each) for each in path)
    return tuple(
        each
        for each in absolute
        if not each.endswith(".zip") and not any(Path(each).is_relative_to(own) for own in _OF_PYTHON)
    )


class Models:
    """
    The models of one run of a server, as the application changes them.

    :param empty: Return the directory of models that have no files.
    """

    def __init__(
        self, catalogue: Catalogue, registrar: Registrar, management: ManagementPlane, empty: Callable[[], Path]
    ) -> None:
        self._catalogue = catalogue
        self._registrar = registrar
        self._management = management
        self._empty = empty

    async def register(
        self,
        url: str | os.PathLike[str] | None,
        name: str | None,
        handler: str | None,
        version: str | None,
        workers: int,
        settings: RequestedSettings,
    ) -> Registered:
        """
        Register a version and start its workers, as `ModelServer.register` documents.

        :raise ServeError: as :meth:`Registrar.enter` and :meth:`Registrar.start`.
        """
        require_number("workers", workers, 0, MOST_WORKERS)
        for setting, least in _SETTINGS.items():
            if (value := getattr(settings, setting)) is not None:
                require_number(setting, value, least, _MOST)
        if isinstance(url, os.PathLike):
            url = os.fspath(url)
        require_optional_texts(url=url, name=name, handler=handler, version=version)
        path = () if handler is None else import_path(sys.path)
        wanted = Registration(url, name, handler, settings=settings, import_path=path)
        if url is None:
            model = await self._registrar.enter_archive(wanted, self._without_files(name, handler, version))
        elif version is not None:
            raise BadRequest(f"version is {version!r:.200}, but the archive at {url} determines its version.")
        else:
            model = await self._registrar.enter(wanted, url, Source.APPLICATION)
        if model.settings.min_workers:
            await self._registrar.start(model)
        await self._registrar.record(model)
        return Registered(model.name, model.version)

    async def unregister(self, name: str, version: str | None) -> None:
        """
        Unregister a version: finish its work in flight, refuse its queued requests, remove its files.

        :raise ServeError: as :meth:`Registry.unregister`.
        """
        require_texts(name=name)
        require_optional_texts(version=version)
        await self._registrar.unregister(name, version)

    async def scale(self, name: str, version: str | None, workers: int, most: int | None) -> None:
        """
        Change the number of workers of a version, and wait for them.

        :raise ServeError: as :meth:`ManagementPlane.scale`.
        """
        require_texts(name=name)
        require_optional_texts(version=version)
        require_number("workers", workers, 0, MOST_WORKERS)
        if most is not None:
            require_number("most", most, workers, MOST_WORKERS)
        await self._management.scale(name, version, workers, most, synchronous=True)

    async def set_default(self, name: str, version: str) -> None:
        """
        Make a version the default one.

        :raise ServeError: as :meth:`ManagementPlane.set_default`.
        """
        require_texts(name=name, version=version)
        await self._management.set_default(name, version)

    async def describe(self, name: str, version: str | None) -> list[dict[str, Any]]:
        """
        Describe a version, as :meth:`ManagementPlane.describe`.

        :raise ServeError: as :meth:`ManagementPlane.describe`.
        """
        require_texts(name=name)
        require_optional_texts(version=version)
        return await self._management.describe(name, version)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the versions of each model, the default one first, by the sorted names."""
        registry = self._catalogue.registry
        found: dict[str, list[ModelVersion]] = {}
        for model in registry:
            if model.workflow is None:
                found.setdefault(model.name, []).append(model)
        return {
            name: tuple(sorted((each.version for each in found[name]), key=registry.default_version(name).__ne__))
            for name in sorted(found)
        }

    def _without_files(self, name: str | None, handler: str | None, version: str | None) -> ModelArchive:
        """
        Return the archive of a model that is code of the application.

        :raise BadRequest: if the handler or the name is missing, or the handler cannot be imported by a worker.
        """
        if handler is None:
            raise BadRequest("Either url or handler is required.")
        if _IMPORTABLE.fullmatch(handler) is None or handler.partition(":")[0] == "__main__":
            raise BadRequest(
                f"handler is {handler!r:.200}: without an archive it must be a module that workers can import,"
                " with or without a class or function, like 'myapp.models:Digits'."
            )
        if name is None:
            raise BadRequest("name is required for a handler without an archive.")
        manifest = Manifest(name, "1.0" if version is None else version, handler)
        return ModelArchive(f"python:{handler}", self._empty(), manifest, ModelConfig())
