# SPDX-License-Identifier: Apache-2.0
"""
Define how the packages that one model needs are installed.

The interface is here and not in `twisted_serve.interfaces`, which knows no models.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen
from zope.interface import Interface

from twisted_serve.models.version import ModelVersion


@frozen(eq=False)
class Installed:
    """
    A model's finished installation.

    :ivar place: The directory of the installation.
    :ivar python: The interpreter of the virtual environment; ``None`` to use the server's interpreter for workers.
    :ivar packages: A directory to import from before the interpreter's own packages; ``None`` for none.
    """

    place: Path
    python: str | None = None
    packages: Path | None = None


class IInstaller(Interface):
    """Installs the packages that models need, each model's in a directory that no other model shares."""

    async def install(model: ModelVersion) -> Installed | None:
        """
        Install the packages that a model needs; cancelling ends the installation and removes its files.

        :return: ``None`` if the model needs none.
        :raise InvalidModel: if the archive names requirements outside the model's directory.
        :raise NotInstalled: if the installation fails or takes too long.
        :raise InternalError: if the directory cannot be made.
        :raise ServiceUnavailable: if the server is stopping.
        """

    async def remove(installed: Installed) -> None:
        """Remove the packages of a model that is no longer registered."""

    async def stop() -> None:
        """Stop all installations; return when no process and no file of them is left."""
