# SPDX-License-Identifier: Apache-2.0
"""
Read the keys that an operator gives: files, such as a mounted secret, or environment variables.

Such a key survives restarts and is the same in all replicas.  It does not expire, is in no file of the server, and is
replaced where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import field, frozen

from twisted_serve.auth.named.secrets import PREFIX
from twisted_serve.auth.tokens import Token, TokenKind
from twisted_serve.system.small_files import read_small, state_of

#: The settings that name files with keys.
OPTIONS: Final = {
    TokenKind.MANAGEMENT: "token_management_key_file",
    TokenKind.INFERENCE: "token_inference_key_file",
    TokenKind.API: "token_api_key_file",
}

#: The environment variables that hold keys themselves, which no other process gets.
VARIABLES: Final = {
    TokenKind.MANAGEMENT: "TS_TOKEN_MANAGEMENT_KEY",
    TokenKind.INFERENCE: "TS_TOKEN_INFERENCE_KEY",
    TokenKind.API: "TS_TOKEN_API_KEY",
}

# In characters: 22 of 64 different ones are 128 bits, if they are random.
SHORTEST: Final = 22
# In bytes: no longer token is accepted in a request.
LONGEST: Final = 512
# Different characters. No random secret of 128 bits has fewer; 22 random hexadecimal digits, which are 88 bits, in one
# of ten thousand cases.
_FEWEST: Final = 8

# RFC 6750 §2.1, b64token.
_B64TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")

#: What changes with the content of each file; ``None`` for a file that is not there.
States: TypeAlias = "tuple[tuple[Any, ...] | None, ...]"


@frozen
class Source:
    """
    The place that a key comes from.

    :ivar name: The setting or the variable.
    :ivar path: The file; ``None`` for a variable.
    """

    kind: TokenKind
    name: str
    path: Path | None = None
    variable: str = field(default="", repr=False)

    def read(self) -> Token:
        """
        Return the key.

        :raise ValueError: naming the source and the reason, and nothing of the content.
        """
        try:
            return Token(self.kind, usable(self._content()), given=self.name)
        except (OSError, ValueError) as e:
            reason = (e.strerror or str(e)) if isinstance(e, OSError) else e
            place = self.name if self.path is None else f"{self.name} {self.path}"
            raise ValueError(f"{place} is no key: {reason}") from None

    def _content(self) -> bytes:
        if self.path is None:
            return self.variable.encode("utf-8", "surrogateescape")
        # One more byte for the newline at the end, which editors and echo add.
        return read_small(self.path, LONGEST + 1).content


@frozen
class Given:
    """
    The given keys as read.

    :ivar states: The states of the files before they were read.
    """

    tokens: tuple[Token, ...]
    states: States


def sources_of(paths: Mapping[TokenKind, Path | None], environ: Mapping[str, str]) -> tuple[Source, ...]:
    """
    Return the sources of the keys that are given.

    :param paths: The files by the kinds of their keys.
    :raise ValueError: when a kind of key is given twice.
    """
    sources = []
    for kind in TokenKind:
        option, name, path = OPTIONS[kind], VARIABLES[kind], paths.get(kind)
        if path is not None and name in environ:
            raise ValueError(f"the {kind.value} key is given twice, by {option} and by the variable {name}")
        if path is not None:
            sources.append(Source(kind, option, path))
        elif name in environ:
            sources.append(Source(kind, name, variable=environ[name]))
    return tuple(sources)


def read_given(sources: Sequence[Source]) -> Given:
    """
    Read all keys; this may block.

    :raise ValueError: naming the source that cannot be used, and why.
    """
    states = states_of(sources)
    tokens: list[Token] = []
    for source in sources:
        token = source.read()
        for other in tokens:
            if token.secret == other.secret:
                raise ValueError(f"{token.given} and {other.given} are the same key")
        tokens.append(token)
    return Given(tuple(tokens), states)


def states_of(sources: Sequence[Source]) -> States:
    """Return the states of the files; this may block."""
    return tuple(None if source.path is None else state_of(source.path) for source in sources)


def usable(content: bytes) -> str:
    """
    Return the secret that a file or a variable holds: one word, with or without a newline at its end.

    :raise ValueError: telling why it cannot be one, and nothing of it.
    """
    secret = content.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise ValueError("it is empty")
    if len(secret) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    if not _B64TOKEN.fullmatch(secret):
        raise ValueError("only A-Z a-z 0-9 - . _ ~ + / may be in it, = at its end, and one newline behind it")
    if len(secret) < SHORTEST:
        raise ValueError(f"it has {len(secret)} characters, not {SHORTEST} or more")
    if secret.startswith(PREFIX.encode("ascii")):
        raise ValueError(f"{PREFIX} begins the keys of token_store")
    if (reason := guessable(secret.rstrip(b"="))) is not None:
        raise ValueError(f"{reason}: take random ones, as openssl rand -hex 32 makes them")
    return secret.decode("ascii")


def guessable(secret: bytes) -> str | None:
    """Return why a secret is not random, or ``None``, as for every random one of 128 bits or more."""
    if len(set(secret)) < _FEWEST:
        return f"it has {len(set(secret))} different characters, not {_FEWEST} or more"
    if any(secret[period:] == secret[:-period] for period in range(1, len(secret) // 2 + 1)):
        return "it repeats itself"
    neighbours = sum(abs(after - before) <= 1 for before, after in pairwise(secret))
    return "it is mostly a row of neighbours, as in abcd" if 4 * neighbours > 3 * len(secret) else None
