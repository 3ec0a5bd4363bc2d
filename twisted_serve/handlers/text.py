# SPDX-License-Identifier: Apache-2.0
"""
Clean text, look up its tokens in a vocabulary, and explain predictions: the base of text handlers.

torchtext is not needed; a vocabulary may be a plain dict of token to id
(``docs/torchserve/archives_workers_handlers.md`` §7.11).
"""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from twisted_serve.handlers.base import BaseHandler
from twisted_serve.handlers.captum import captum_attr
from twisted_serve.handlers.contractions import CONTRACTION_MAP
from twisted_serve.handlers.exceptions import PredictionException
from twisted_serve.handlers.rows import input_of
from twisted_serve.handlers.text_utils import basic_english
from twisted_serve.handlers.weights import allows_pickle, load_tensors

__all__ = ["CLEANUP_REGEX", "TextHandler"]

#: Tags and entities of HTML. A tag contains no ``<``: otherwise a text of many ``<`` would take quadratic time.
CLEANUP_REGEX = re.compile(r"<[^<>]*>|&(?:[a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});", re.IGNORECASE)

# Longest first: ``can't`` must not match before ``can't've``.
_CONTRACTIONS = re.compile("|".join(map(re.escape, sorted(CONTRACTION_MAP, key=len, reverse=True))), re.IGNORECASE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TextHandler(BaseHandler):
    """
    Base class of handlers for text models.

    :ivar source_vocab: The vocabulary: a dict of token to id, or an object of torchtext's ``Vocab``.
    :ivar tokenizer: A callable that splits a text into a list of tokens.
    """

    source_vocab: Any = None
    tokenizer: Any = staticmethod(basic_english)
    input_text: Any = None

    @cached_property
    def lig(self) -> Any:
        """Captum's ``LayerIntegratedGradients`` for the model's ``embedding`` layer."""
        return captum_attr().LayerIntegratedGradients(self.model, self.model.embedding)

    def initialize(self, context: Any) -> None:
        """
        Load the model and the vocabulary.

        :raise RuntimeError: if either is missing, or the vocabulary contains pickled objects that are not allowed.
        """
        super().initialize(context)
        self.source_vocab = load_tensors(self.get_source_vocab_path(context), "cpu", allows_pickle(context))

    def get_source_vocab_path(self, context: Any) -> str:
        """
        Return the path of the vocabulary: the manifest's ``sourceVocab``, else ``source_vocab.pt``.

        :raise RuntimeError: if the file does not exist.
        """
        name = ((context.manifest or {}).get("model") or {}).get("sourceVocab") or "source_vocab.pt"
        path = os.path.join(context.system_properties["model_dir"], name)
        if not os.path.isfile(path):
            raise RuntimeError(f"Missing the source_vocab file: {name} is not in the archive")
        return path

    def text_of(self, row: Any) -> str:
        """
        Return a request's text.

        :raise PredictionException: 400, if the request has no text, or its bytes are not UTF-8.
        """
        text = input_of(row)
        if isinstance(text, (bytes, bytearray)):
            try:
                return text.decode("utf-8")
            except UnicodeDecodeError as e:
                raise PredictionException("the input is not a text in UTF-8", 400) from e
        if not isinstance(text, str):
            raise PredictionException("the request has no text in data or body", 400)
        return text

    def token_ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the tokens' ids; tokens missing from a dict get its ``<unk>``, or are left out if it has none."""
        vocabulary = self.source_vocab
        if not isinstance(vocabulary, Mapping):
            return [vocabulary[each] for each in tokens]
        unknown = vocabulary.get("<unk>")
        found = (vocabulary.get(each, unknown) for each in tokens)
        return [each for each in found if each is not None]

    def get_word_token(self, input_tokens: Any) -> list[str]:
        """Return the tokens of ids, given as a sequence or a one-dimensional integer tensor."""
        numbers = [int(each) for each in input_tokens]
        if not isinstance(self.source_vocab, Mapping):
            words: list[str] = self.source_vocab.lookup_tokens(numbers)
            return words
        by_number = {number: token for token, number in self.source_vocab.items()}
        return [by_number.get(each, "<unk>") for each in numbers]

    def summarize_attributions(self, attributions: Any) -> Any:
        """
        Sum attributions over the embedding dimension and scale the result to Euclidean norm 1.

        :param attributions: A float tensor of shape (T, E) or (1, T, E) for T tokens and E embedding dimensions.
        :return: A float tensor of shape (T,).
        """
        import torch  # noqa: PLC0415

        sums = attributions.sum(dim=-1).squeeze(0)
        return sums / torch.norm(sums)

    def _expand_contractions(self, text: str) -> str:
        return _CONTRACTIONS.sub(lambda found: found[0][0] + CONTRACTION_MAP[found[0].lower()][1:], text)

    def _remove_accented_characters(self, text: str) -> str:
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")

    def _remove_html_tags(self, text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(_PUNCTUATION)

    # TorchServe's spelling, which subclasses use.
    _remove_puncutation = _remove_punctuation

    def _tokenize(self, text: str) -> Any:
        return self.tokenizer(text)
