# SPDX-License-Identifier: Apache-2.0
"""
Parse the list of models to load at start: ``load_models`` and ``--models``.
"""

from __future__ import annotations

import re

from attrs import field, frozen
from attrs.validators import min_len

# The text before the first "=" of "http://host/x.mar?part=1" is not a name.
_NAME = re.compile(r"[^/\\:?#&%=]+")


@frozen
class StartupModel:
    """
    One model to load at start.

    :ivar name: The name to register the model as; ``None`` for the name in its archive.
    :ivar url: The archive's name in the model store, a directory, or a URL.
    """

    name: str | None
    url: str = field(validator=min_len(1))


#: All archives and directories of the model store.
ALL_MODELS = StartupModel(None, "all")


def parse_load_models(text: str | None) -> tuple[StartupModel, ...]:
    """
    Parse ``all``, ``standalone`` (no models), or comma-separated items ``[name=]location``.

    Blanks around items, names and locations are ignored, and items without a location
    are skipped (``docs/torchserve/rest_api.md`` §17.2).

    :return: ``(ALL_MODELS,)`` for ``all``.
    """
    whole = (text or "").strip()
    if whole.lower() == "all":
        return (ALL_MODELS,)
    if whole.lower() == "standalone":
        return ()
    return tuple(model for item in whole.split(",") if (model := _item(item.strip())) is not None)


def _item(item: str) -> StartupModel | None:
    name, equals, url = (part.strip() for part in item.partition("="))
    if equals and _NAME.fullmatch(name):
        return StartupModel(name, url) if url else None
    return StartupModel(None, item) if item else None
