# SPDX-License-Identifier: Apache-2.0
"""
This module implements the list of models to load at start: ``load_models`` and ``--models``.
"""

from __future__ import annotations

import re

from attrs import field, frozen
from attrs.validators import min_len

# What stands before the first "=" of "http://host/x.mar?part=1" is no name.
_NAME = re.compile(r"[^/\\:?#&%=]+")


@frozen
class StartupModel:
    """
    One model to load at start.

    :ivar name: The name to register it as; ``None`` for its archive's own.
    :ivar url: The archive's name in the model store, a directory, or a URL.
    """

    name: str | None
    url: str = field(validator=min_len(1))


#: Stands for every archive and directory of the model store.
ALL_MODELS = StartupModel(None, "all")


def parse_load_models(text: str | None) -> tuple[StartupModel, ...]:
    """
    Read ``all``, ``standalone`` (none), or ``[name=]location`` items with commas between them.

    Blanks around items, names and locations do not count, and items without a location
    are passed over (``docs/torchserve/rest_api.md`` §17.2).

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
