# SPDX-License-Identifier: Apache-2.0
"""
Tokenize text and iterate over n-grams, as torchtext does, without torchtext.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["basic_english", "get_tokenizer", "ngrams_iterator"]

# Text replaced by a space, and characters that become separate tokens.
_BLANKS = re.compile(r"<br />|[;:]")
_WORDS = re.compile(r"['.,()!?]")


def get_tokenizer(tokenizer: Any, language: str = "en") -> Callable[[str], list[str]] | None:
    """
    Return a function that splits a text into tokens.

    :param tokenizer: ``"basic_english"``, ``None`` to split at white space, or a callable, which is returned.
    :return: The function, or ``None`` for any other name.
    :raise ValueError: for ``basic_english`` in a language other than ``en``.
    """
    if tokenizer is None:
        return str.split
    if tokenizer == "basic_english":
        if language != "en":
            raise ValueError(f"basic_english is for the language 'en', not {language!r}")
        return basic_english
    return tokenizer if callable(tokenizer) else None


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """Iterate over all n-grams, joined by spaces: first the tokens, then the bigrams, up to n = ``ngrams``."""
    for length in range(1, ngrams + 1):
        for start in range(len(token_list) - length + 1):
            yield " ".join(token_list[start : start + length])


def basic_english(text: str) -> list[str]:
    """Split an English text into words and punctuation marks, in lower case."""
    plain = _BLANKS.sub(" ", text.lower().replace('"', ""))
    return _WORDS.sub(lambda found: f" {found[0]} ", plain).split()
