# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``text_classifier``: what kind of text it is.

It answers a whole batch with one call of the model, which takes the numbers of
all texts' n-grams in a row, and the offset of each text in it (as
``torch.nn.EmbeddingBag`` does).
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


class _Texts(tuple[Any, list[list[str]]]):
    """
    All texts' numbers in a row, and each text's tokens: a pair, as subclasses expect.

    :ivar offsets: Where each text begins.
    """

    offsets: list[int]


class TextClassifier(TextHandler):
    """
    Answers each text with the probabilities of all classes, ``{label: probability}``.

    :cvar ngrams: How many neighbouring tokens are looked up together, at most.
    """

    ngrams = 2

    def cleaned(self, text: str) -> str:
        """Take from a text what the vocabulary knows nothing of: markup, capitals, accents, punctuation."""
        lower = self._remove_html_tags(text).lower()
        return self._remove_punctuation(self._remove_accented_characters(self._expand_contractions(lower)))

    @timed
    def preprocess(self, data: Any) -> Any:
        """
        Make the model's input of the texts.

        :raise PredictionException: 400, for a request without a text.
        """
        import torch  # noqa: PLC0415

        tokens = [self._tokenize(self.cleaned(self.text_of(row))) for row in data]
        numbers = [self.token_ids(list(ngrams_iterator(each, self.ngrams))) for each in tokens]
        ends = list(accumulate(map(len, numbers)))
        ids = torch.as_tensor([number for each in numbers for number in each], dtype=torch.int64, device=self.device)
        texts = _Texts((ids, tokens))
        texts.offsets = [0, *ends[:-1]]
        return texts

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model with all numbers and the offsets of the texts."""
        ids, _ = data
        return super().inference(ids, self._offsets(data), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """Make the answers of the model's scores."""
        import torch  # noqa: PLC0415

        return map_class_to_label(torch.softmax(data, dim=-1).tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, raw_data: Any, target: Any = 0) -> Any:
        """
        Say how much each n-gram contributed to the class ``target``: for each text its words and their importances.

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
