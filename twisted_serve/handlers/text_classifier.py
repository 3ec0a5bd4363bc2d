# SPDX-License-Identifier: Apache-2.0
"""
Classify texts: the built-in handler ``text_classifier``.

A batch takes one call of the model, with the concatenated n-gram ids of all
texts and the offset of each text (as ``torch.nn.EmbeddingBag`` expects).
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from twisted_serve.handlers.captum import captum_attr
from twisted_serve.handlers.model_files import map_class_to_label
from twisted_serve.handlers.text import TextHandler
from twisted_serve.handlers.text_utils import ngrams_iterator
from twisted_serve.handlers.timer import timed

__all__ = ["TextClassifier"]


class _EncodedTexts(tuple[Any, list[list[str]]]):
    """
    A pair, as subclasses expect: the concatenated ids of all texts, and the tokens of each text.

    :ivar offsets: The index of each text's first id.
    """

    offsets: list[int]


class TextClassifier(TextHandler):
    """
    Returns the probabilities of all classes for each text, ``{label: probability}``.

    The model is called with two int64 tensors, ids of shape (T,) and offsets of shape (N,), for N texts with T n-grams
    in total; it returns logits of shape (N, C) for C classes.

    :cvar ngrams: The largest n of the n-grams that are looked up.
    """

    ngrams = 2

    def cleaned(self, text: str) -> str:
        """Return the text in lower case, with contractions expanded and without HTML tags, accents and punctuation."""
        lower = self._remove_html_tags(text).lower()
        return self._remove_punctuation(self._remove_accented_characters(self._expand_contractions(lower)))

    @timed
    def preprocess(self, data: Any) -> Any:
        """
        Tokenize the texts and look up their n-grams.

        :return: A pair: ids, an int64 tensor of shape (T,), and a list of N lists of tokens; its attribute ``offsets``
            is a list of N ints.
        :raise PredictionException: 400, for a request without a text.
        """
        import torch  # noqa: PLC0415

        tokens = [self._tokenize(self.cleaned(self.text_of(row))) for row in data]
        numbers = [self.token_ids(list(ngrams_iterator(each, self.ngrams))) for each in tokens]
        ends = list(accumulate(map(len, numbers)))
        ids = torch.as_tensor([number for each in numbers for number in each], dtype=torch.int64, device=self.device)
        texts = _EncodedTexts((ids, tokens))
        texts.offsets = [0, *ends[:-1]]
        return texts

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Call the model with the ids and offsets of all texts.

        :param data: The result of ``preprocess``; the offsets are ``[0]`` if it has none.
        :return: Logits, a float tensor of shape (N, C).
        """
        ids, _ = data
        return super().inference(ids, self._offsets(data), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """
        Apply softmax to the logits.

        :param data: Logits, a float tensor of shape (N, C).
        :return: A list of N dicts of label to probability.
        :raise KeyError: if ``index_to_name.json`` has no label for a class.
        """
        import torch  # noqa: PLC0415

        return map_class_to_label(torch.softmax(data, dim=-1).tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, raw_data: Any, target: Any = 0) -> Any:
        """
        Attribute the score of the class ``target`` to the n-grams of each text.

        :return: A list of N dicts, each with the lists ``words`` and ``importances`` (of norm 1) of equal length.
        :raise PredictionException: 501, if Captum is not installed.
        """
        import torch  # noqa: PLC0415

        ids, _ = text_preprocess
        starts = self._offsets(text_preprocess).tolist()
        return [
            self._insight(ids[start:end], target, captum_attr().TokenReferenceBase(), torch.tensor([0]))
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)
        ]

    def _insight(self, ids: Any, target: Any, reference: Any, offset: Any) -> dict[str, Any]:
        baseline = reference.generate_reference(ids.shape[0], device=self.device).squeeze(0)
        attributions = self.lig.attribute(
            ids,
            baseline,
            additional_forward_args=(offset.to(self.device),),
            return_convergence_delta=False,
            target=target,
        )
        return {"importances": self.summarize_attributions(attributions).tolist(), "words": self.get_word_token(ids)}

    def _offsets(self, data: Any) -> Any:
        import torch  # noqa: PLC0415

        return torch.as_tensor(getattr(data, "offsets", [0]), device=self.device)
