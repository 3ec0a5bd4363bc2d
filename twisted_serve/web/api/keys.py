# SPDX-License-Identifier: Apache-2.0
"""
List the routes that manage keys with names.
"""

from __future__ import annotations

from twisted_serve.auth.scopes import Operation
from twisted_serve.web.api.route import PAGING, REFUSED, Route

_STORED = {**REFUSED, 404: "No such key, or the server has no token_store.", 500: "The file cannot be used."}

NAMED_KEYS = (
    Route(
        "/keys",
        "get",
        "listKeys",
        "List the keys with names, the oldest first.",
        {200: "A page of the list.", **REFUSED, 404: "The server has no token_store."},
        Operation.LIST_KEYS,
        PAGING,
        result="Keys",
    ),
    Route(
        "/keys",
        "post",
        "createKey",
        "Make a key with a name.",
        {201: "The key, with its secret, which is shown only here.", **_STORED, 409: "A key has this name already."},
        Operation.CREATE_KEY,
        body="NewKey",
        result="KeyWithSecret",
    ),
    Route(
        "/keys/{key_name}",
        "get",
        "describeKey",
        "Describe a key.",
        {200: "The key, without its secret.", **REFUSED, 404: _STORED[404]},
        Operation.LIST_KEYS,
        result="Key",
    ),
    Route(
        "/keys/{key_name}",
        "patch",
        "changeKey",
        "Change what a key may do, and for how long.",
        {200: "The key as it is now.", **_STORED},
        Operation.CHANGE_KEY,
        body="KeyChange",
        result="Key",
    ),
    Route(
        "/keys/{key_name}",
        "delete",
        "revokeKey",
        "Remove a key, which is refused from then on.",
        {200: "Removed.", **_STORED},
        Operation.REVOKE_KEY,
    ),
    Route(
        "/keys/{key_name}/rotate",
        "post",
        "rotateKey",
        "Replace the secret of a key.",
        {200: "The key, with its new secret, which is shown only here.", **_STORED},
        Operation.CHANGE_KEY,
        result="KeyWithSecret",
    ),
)
