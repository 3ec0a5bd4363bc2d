# SPDX-License-Identifier: Apache-2.0
"""
Make named keys for tests.
"""

from __future__ import annotations

from datetime import datetime, timezone
from hashlib import sha256

from hypothesis import strategies as st

from twisted_serve.auth.named.collection import KeyRecords
from twisted_serve.auth.named.records import Former, NamedKey
from twisted_serve.auth.named.scopes import SCOPES, KeyScopes
from twisted_serve.testing.strategies.tokens import aware_datetimes

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)


def digest(secret: str) -> str:
    """Return the digest of a secret, as in a store."""
    return sha256(secret.encode()).hexdigest()


def some_key(name: str = "consumer", scope: str = "inference") -> NamedKey:
    """Return a key whose secret is its name."""
    return NamedKey(name, digest(name), KeyScopes((scope,)), NOW)


def names() -> st.SearchStrategy[str]:
    """Return names that keys may have."""
    return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}", fullmatch=True)


def named_keys() -> st.SearchStrategy[NamedKey]:
    """Return named keys; the secret of one is its name, and the former one is that with ``.old``."""
    scopes = st.lists(st.sampled_from([*SCOPES, "inference:resnet*", "inference:?"]), min_size=1, max_size=3)
    limits = st.none() | st.integers(1, 10**9)
    return st.builds(
        lambda name, scopes, created, expires, disabled, rate, concurrent, until: NamedKey(
            name,
            digest(name),
            KeyScopes(tuple(scopes)),
            created,
            expires,
            disabled,
            rate,
            concurrent,
            None if until is None else Former(digest(f"{name}.old"), until),
        ),
        names(),
        scopes,
        aware_datetimes(),
        st.none() | aware_datetimes(),
        st.booleans(),
        limits,
        limits,
        st.none() | aware_datetimes(),
    )


def stores(most: int = 5) -> st.SearchStrategy[KeyRecords]:
    """Return the keys of stores; no two of them clash."""
    keys = st.lists(named_keys(), max_size=most, unique_by=lambda key: key.name)
    return keys.filter(lambda found: not any(f"{one.name}.old" == other.name for one in found for other in found)).map(
        KeyRecords
    )
