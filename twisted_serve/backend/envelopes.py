# SPDX-License-Identifier: Apache-2.0
"""
Wrap a handler in the envelope named by ``service_envelope``.
"""

from __future__ import annotations

import importlib
from typing import Any

from twisted_serve.backend.loader import EntryPoint
from twisted_serve.backend.ts.names import BUILT_IN_ENVELOPES
from twisted_serve.handlers.envelope import BaseEnvelope
from twisted_serve.handlers.model_files import list_classes_from_module

__all__ = ["enveloped"]


def enveloped(entry: EntryPoint, name: str) -> EntryPoint:
    """
    Return the entry point of an envelope around a handler.

    :param name: A built-in envelope, or ``module`` or ``module:Class`` in the archive or an installed package.
    :raise ModuleNotFoundError: if the module does not exist.
    :raise ValueError: if the module has no such envelope.
    """
    return _as_entry_point(_envelope_class(name)(entry).handle)


def _as_entry_point(found: Any) -> EntryPoint:
    entry: EntryPoint = found
    return entry


def _envelope_class(name: str) -> type[BaseEnvelope]:
    place, _, wanted = BUILT_IN_ENVELOPES.get(name, name).partition(":")
    place = place.removesuffix(".py")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{place}.".startswith(f"{e.name}."):
            raise
        known = ", ".join(BUILT_IN_ENVELOPES)
        raise ModuleNotFoundError(
            f"service_envelope is {name!r}, which is neither built in ({known}) nor a module", name=place
        ) from e
    # As in TorchServe: the first of several classes by name.
    classes = [each for each in list_classes_from_module(module, BaseEnvelope) if wanted in ("", each.__name__)]
    if not classes:
        what = wanted or "class that derives from BaseEnvelope"
        raise ValueError(f"service_envelope is {name!r}, but there is no {what} in {place}")
    return classes[0]
