# SPDX-License-Identifier: Apache-2.0
"""
Track the registered versions of models and the default version of each.

A registry is an immutable value; registering returns a new one.  Its owner replaces the current one in a single step,
so a half-changed registry is never visible, and concurrent registrations cannot overwrite each other.
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
    Return a model name from a request or manifest if it is valid.

    :raise BadRequest: if not.
    """
    if (flaw := name_flaw(name)) is not None:
        raise BadRequest(f"Model name {name!r:.300} is not valid: {flaw}.")
    return name


def valid_model_version(version: str) -> str:
    """
    Return a version from a manifest if it is valid.

    :raise BadRequest: if not.
    """
    if (flaw := version_flaw(version)) is not None:
        raise BadRequest(f"Model version {version!r:.300} is not valid: {flaw}.")
    return version


def fallback_name(url: str) -> str:
    """
    Return a name for a start-up model that neither ``load_models`` nor its manifest names.

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
    A page of a list of names.

    :ivar next_page_token: The token of the next page; ``None`` on the last page.
    """

    names: tuple[str, ...]
    next_page_token: int | None


def page_of(names: Iterable[str], limit: int, next_page_token: int) -> Page:
    """Return a page of names, as :meth:`Registry.names`."""
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
        Return a registry with a version added; the first version of a model becomes its default.

        :raise Conflict: if the version is already registered.
        """
        model = self._models.get(version.name) or _Model(version.version, {})
        if version.version in model.versions:
            raise Conflict(f"Model version {version.version} is already registered for model {version.name}")
        return self._with(version.name, evolve(model, versions={**model.versions, version.version: version}))

    def unregister(self, name: str, version: str | None = None) -> tuple[Registry, ModelVersion]:
        """
        Remove a version; ``None`` stands for the default version.

        :return: The registry without the version, and the version removed.
        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        :raise InvalidModelVersion: if it is the default version and the model has others.
        """
        removed = self.resolve(name, version)
        model = self._models[name]
        remaining = {key: kept for key, kept in model.versions.items() if kept is not removed}
        if not remaining:
            return Registry({key: kept for key, kept in self._models.items() if key != name}), removed
        if removed.version == model.default:
            raise InvalidModelVersion(f"Cannot remove default version for model {name}")
        return self._with(name, evolve(model, versions=remaining)), removed

    def set_default(self, name: str, version: str) -> Registry:
        """
        Return a registry in which a version is its model's default.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        """
        model = self._model(name)
        if version not in model.versions:
            # Unlike other messages, without a colon: clients compare this text (``docs/torchserve/rest_api.md`` §8.6).
            raise ModelVersionNotFound(f"Model version {version} does not exist for model {name}")
        return self._with(name, evolve(model, default=version))

    def resolve(self, name: str, version: str | None = None) -> ModelVersion:
        """
        Return a version; ``None`` stands for the default version.

        :raise ModelNotFound: if there is no such model.
        :raise ModelVersionNotFound: if the model has no such version.
        """
        # Every request comes here: no call for a model that is there.
        model = self._models.get(name) or self._model(name)
        found = model.versions.get(model.default if version is None else version)
        if found is None:
            raise ModelVersionNotFound.of(name, str(version))
        return found

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """
        Return a model's versions in the order of their registration.

        :raise ModelNotFound: if there is no such model.
        """
        return tuple(self._model(name).versions.values())

    def default_version(self, name: str) -> str:
        """
        Return the default version of a model.

        :raise ModelNotFound: if there is no such model.
        """
        return self._model(name).default

    def names(self, limit: int = _MAX_PAGE, next_page_token: int = 0) -> Page:
        """
        Return a page of sorted names of the models that have a URL (``docs/torchserve/rest_api.md`` §8.1).

        :param limit: Maximum number of names; a value outside 1 to 100 counts as 100.
        :param next_page_token: The start of the page; a negative value is the beginning.
        """
        return page_of((name for name in self._models if self.resolve(name).url), limit, next_page_token)

    def __iter__(self) -> Iterator[ModelVersion]:
        """Iterate over all versions of all models."""
        for model in self._models.values():
            yield from model.versions.values()

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound.named(name)
        return model

    def _with(self, name: str, model: _Model) -> Registry:
        return Registry({**self._models, name: model})
