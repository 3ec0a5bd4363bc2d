# SPDX-License-Identifier: Apache-2.0
"""
This module implements the registry: which versions of which models there are, and which version is a model's default.

A registry is a value; registering makes another one.  Who holds the current one
replaces it in one step, so there is no moment at which it is half changed, and two
registrations cannot lose each other's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, field, frozen

from twisted_serve.archives.names import name_flaw, version_flaw
from twisted_serve.errors import BadRequest, Conflict, InvalidModelVersion, ModelNotFound, ModelVersionNotFound
from twisted_serve.models.version import ModelVersion

_MAX_PAGE = 100


def valid_model_name(name: str) -> str:
    """
    Return a model name that came from a request or a manifest.

    :raise BadRequest: if it is none.
    """
    if (flaw := name_flaw(name)) is not None:
        raise BadRequest(f"Model name {name!r:.300} is not valid: {flaw}.")
    return name


def valid_model_version(version: str) -> str:
    """
    Return a version that came from a manifest.

    :raise BadRequest: if it is none.
    """
    if (flaw := version_flaw(version)) is not None:
        raise BadRequest(f"Model version {version!r:.300} is not valid: {flaw}.")
    return version


def fallback_name(url: str) -> str:
    """
    Make the name of a start-up model which neither ``load_models`` nor its manifest names.

    ``docs/torchserve/config_cli.md`` §5: the last component of the path, without its extension.
    """
    base = url.rstrip("/").rpartition("/")[2]
    stem = base.rpartition(".")[0] if ".mar" in base or ".model" in base else base
    return re.sub(r"[^A-Za-z0-9_]", "_", stem or base) or "_"


@frozen
class _Model:
    """The versions of one model, in the order of their registration."""

    default: str
    versions: Mapping[str, ModelVersion]


@frozen
class Page:
    """
    Some of the models' names.

    :ivar next_page_token: What to ask for next; ``None`` on the last page.
    """

    names: tuple[str, ...]
    next_page_token: int | None


def page_of(names: Iterable[str], limit: int, next_page_token: int) -> Page:
    """Make a page of names, as :meth:`Registry.names` has it."""
    ordered = sorted(names)
    start = max(0, next_page_token)
    end = start + (limit if 0 < limit <= _MAX_PAGE else _MAX_PAGE)
    return Page(tuple(ordered[start:end]), end if end < len(ordered) else None)


@frozen
class Registry:
    """The registered versions.  Every model has at least one, and exactly one is its default."""

    _models: Mapping[str, _Model] = field(factory=dict)

    def register(self, version: ModelVersion) -> Registry:
        """
        Add a version; the first one of a model is its default.

        :raise Conflict: if it is registered already.
        """
        model = self._models.get(version.name) or _Model(version.version, {})
        if version.version in model.versions:
            raise Conflict(f"Model version {version.version} is already registered for model {version.name}")
        return self._with(version.name, evolve(model, versions={**model.versions, version.version: version}))

    def unregister(self, name: str, version: str | None = None) -> tuple[Registry, ModelVersion]:
        """
        Take a version away, the default one for ``None``.

        :return: The registry without it, and what was taken away.
        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        :raise InvalidModelVersion: if it is the default and others would be left without one.
        """
        gone = self.resolve(name, version)
        model = self._models[name]
        rest = {key: kept for key, kept in model.versions.items() if kept is not gone}
        if not rest:
            return Registry({key: kept for key, kept in self._models.items() if key != name}), gone
        if gone.version == model.default:
            raise InvalidModelVersion(f"Cannot remove default version for model {name}")
        return self._with(name, evolve(model, versions=rest)), gone

    def set_default(self, name: str, version: str) -> Registry:
        """
        Make a version the one that answers for its model.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        """
        model = self._model(name)
        if version not in model.versions:
            # Without the colons of all other texts: clients compare it (``docs/torchserve/rest_api.md`` §8.6).
            raise ModelVersionNotFound(f"Model version {version} does not exist for model {name}")
        return self._with(name, evolve(model, default=version))

    def resolve(self, name: str, version: str | None = None) -> ModelVersion:
        """
        Find a version, the default one for ``None``.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        """
        model = self._model(name)
        found = model.versions.get(model.default if version is None else version)
        if found is None:
            raise ModelVersionNotFound.of(name, str(version))
        return found

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """
        List a model's versions in the order of their registration.

        :raise ModelNotFound: if there is no such model.
        """
        return tuple(self._model(name).versions.values())

    def default_version(self, name: str) -> str:
        """
        Tell which version is the default.

        :raise ModelNotFound: if there is no such model.
        """
        return self._model(name).default

    def names(self, limit: int = _MAX_PAGE, next_page_token: int = 0) -> Page:
        """
        List names in order, some at a time, those left out which have no URL (``docs/torchserve/rest_api.md`` §8.1).

        :param limit: At most so many; what is not from 1 to 100 counts as 100.
        :param next_page_token: Where to go on, below 0 for the beginning.
        """
        return page_of((name for name in self._models if self.resolve(name).url), limit, next_page_token)

    def __iter__(self) -> Iterator[ModelVersion]:
        """Go through all versions of all models."""
        for model in self._models.values():
            yield from model.versions.values()

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound.named(name)
        return model

    def _with(self, name: str, model: _Model) -> Registry:
        return Registry({**self._models, name: model})
