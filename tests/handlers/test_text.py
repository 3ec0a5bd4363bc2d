# SPDX-License-Identifier: Apache-2.0
"""Tests for the text handlers, with a small real model; what it must answer is calculated in NumPy here."""

from __future__ import annotations

import json
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, text
from twisted.trial.unittest import SynchronousTestCase

from tests.modules import replace_modules
from twisted_serve.handlers.contractions import CONTRACTION_MAP
from twisted_serve.handlers.text import CLEANUP_REGEX, TextHandler
from twisted_serve.handlers.text_utils import get_tokenizer, ngrams_iterator
from twisted_serve.testing.local_worker import LocalWorker, local_worker
from twisted_serve.wire.messages import Job, Part, Predicted, PredictFailed

np = pytest.importorskip("numpy", reason="numpy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

VOCABULARY = {"<unk>": 0, "good": 1, "bad": 2, "not": 3, "do": 4, "not good": 5, "cafe": 6}
EMBEDDING = [[0.0, 0.1], [1.0, -1.0], [-1.0, 1.5], [0.0, 0.5], [0.25, 0.0], [-3.0, 3.0], [2.0, 2.5]]

MODEL = f"""
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag.from_pretrained(torch.tensor({EMBEDDING}), mode="sum")

    def forward(self, ids, offsets):
        return self.embedding(ids, offsets)
"""


def expected(*tokens: str) -> list[float]:
    """Calculate the probabilities of a text of these n-grams."""
    scores = sum((np.array(EMBEDDING[VOCABULARY[each]]) for each in tokens), np.zeros(2))
    powers = np.exp(scores)
    return list(powers / powers.sum())


class TextClassifierTests(SynchronousTestCase):
    """``text_classifier``."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp()).resolve()
        self.dir.mkdir()
        (self.dir / "model.py").write_text(MODEL)
        (self.dir / "index_to_name.json").write_text('{"0": "praise", "1": "blame"}')
        torch.save(VOCABULARY, self.dir / "source_vocab.pt")

    def _serve(self, **manifest: str) -> LocalWorker:
        named = {"modelFile": "model.py", **manifest}
        context = local_worker(self.dir, "text_classifier", manifest={"model": named})
        worker = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return worker

    def _check(self, worker: LocalWorker, *texts: tuple[str, tuple[str, ...]]) -> None:
        items = worker.predict(*(Part("body", "text/plain", words.encode()) for words, _ in texts))
        for item, (words, tokens) in zip(items, texts, strict=True):
            answer = json.loads(item.body)
            self.assertEqual(list(answer), ["praise", "blame"])
            np.testing.assert_allclose(list(answer.values()), expected(*tokens), rtol=1e-5, err_msg=words)

    def test_batch(self) -> None:
        """Each text of a batch gets its own probabilities, as if it were alone; an empty one, too."""
        texts: list[tuple[str, tuple[str, ...]]] = [
            ("good", ("good",)),
            ("not good", ("not", "good", "not good")),
            ("<b></b>", ()),
            ("bad good", ("bad", "good", "<unk>")),
        ]
        worker = self._serve()
        self._check(worker, *texts)
        for each in texts:
            self._check(worker, each)

    def test_cleaned(self) -> None:
        """Markup, capitals, contractions, accents and punctuation are no hindrance."""
        self._check(
            self._serve(),
            ("<p>GOOD</p>&nbsp;", ("good",)),
            ("Don't!", ("do", "not", "<unk>")),
            ("Café.", ("cafe",)),
            ("not, good?", ("not", "good", "not good")),
        )

    def test_bytes(self) -> None:
        """A text without a content type is UTF-8; what is not, or no text, is the client's error."""
        worker = self._serve()
        self._check(worker, ("good", ("good",)))
        (item,) = worker.predict(Part("data", "", "café".encode()))
        np.testing.assert_allclose(list(json.loads(item.body).values()), expected("cafe"), rtol=1e-5)
        for part, message in (
            (Part("data", "", b"\xff\xfe"), "the input is not a text in UTF-8"),
            (Part("other", "", b"good"), "the request has no text in data or body"),
            (Part("data", "application/json", b"[1]"), "the request has no text in data or body"),
        ):
            answer = worker.answer(Job("r", {}, [part]))
            self.assertEqual(answer, PredictFailed(answer.batch_id, 400, message))

    def test_vocabulary(self) -> None:
        """The manifest may name the vocabulary; without ``<unk>`` in it strange words do not count."""
        torch.save({"good": 1}, self.dir / "words.pt")
        self._check(self._serve(sourceVocab="words.pt"), ("a good thing", ("good",)))

    def test_no_vocabulary(self) -> None:
        """A vocabulary that is missing is named."""
        with self.assertRaises(RuntimeError) as raised:
            self._serve(sourceVocab="words.pt")
        self.assertEqual(str(raised.exception), "Missing the source_vocab file: words.pt is not in the archive")

    def test_explain(self) -> None:
        """Captum explains each text of a batch by its n-grams."""
        asked: list[Any] = []

        class LayerIntegratedGradients:
            def __init__(self, model: Any, layer: Any) -> None:
                assert layer is model.embedding
                self.weight = layer.weight

            def attribute(self, ids: Any, baseline: Any, **options: Any) -> Any:
                asked.append((ids.tolist(), baseline.tolist(), options["target"]))
                return self.weight[ids][None]

        class TokenReferenceBase:
            def generate_reference(self, length: int, device: Any) -> Any:
                return torch.zeros((1, length), dtype=torch.int64, device=device)

        attr = SimpleNamespace(LayerIntegratedGradients=LayerIntegratedGradients, TokenReferenceBase=TokenReferenceBase)
        replace_modules(self, {"captum": SimpleNamespace(attr=attr), "captum.attr": attr})
        parts = [Part("data", "text/plain", each) for each in (b"not good", b"bad")]
        jobs = [Job(f"r{index}", {"explain": "True"}, [part]) for index, part in enumerate(parts)]
        answer = self._serve().answer(*jobs)
        assert isinstance(answer, Predicted), answer
        found = [json.loads(item.body) for item in answer.items]
        self.assertEqual([each["words"] for each in found], [["not", "good", "not good"], ["bad"]])
        sums = np.array([0.5, 0.0, 0.0])
        np.testing.assert_allclose(found[0]["importances"], sums / np.linalg.norm(sums), atol=1e-6)
        self.assertEqual(asked, [([3, 1, 5], [0, 0, 0], 0), ([2], [0], 0)])

    def test_subclass(self) -> None:
        """``preprocess`` returns a pair, and a subclass may pass another pair to ``inference``."""
        (self.dir / "h.py").write_text(
            "from ts.torch_handler.text_classifier import TextClassifier\n"
            "class Mine(TextClassifier):\n"
            "    def preprocess(self, data):\n"
            "        ids, tokens = super().preprocess(data)\n"
            "        return ids, tokens\n"
        )
        with local_worker(self.dir, "h.py", manifest={"model": {"modelFile": "model.py"}}) as worker:
            self._check(worker, ("good", ("good",)))


class Vocabulary:
    """A vocabulary as torchtext's."""

    def __getitem__(self, token: str) -> int:
        return VOCABULARY.get(token, 0)

    def lookup_tokens(self, numbers: list[int]) -> list[str]:
        return [list(VOCABULARY)[each] for each in numbers]


class TextHandlerTests(SynchronousTestCase):
    """Tests for the base class of text handlers."""

    def test_torchtext(self) -> None:
        """A vocabulary of torchtext works as well as a dictionary."""
        handler = TextHandler()
        for vocabulary in (Vocabulary(), VOCABULARY):
            handler.source_vocab = vocabulary
            self.assertEqual(handler.token_ids(["good", "strange"]), [1, 0])
            self.assertEqual(handler.get_word_token(torch.tensor([2, 1])), ["bad", "good"])

    def test_helpers(self) -> None:
        """Each step that subclasses call does one thing."""
        handler = TextHandler()
        self.assertEqual(
            handler._expand_contractions("I'm sure they WON'T, he can't've"), "I am sure they Will not, he cannot have"
        )
        self.assertEqual(handler._remove_accented_characters("Ångström naïve"), "Angstrom naive")
        self.assertEqual(handler._remove_html_tags("<a href='x'>b</a> &amp; &#39;c&#x27;"), "b  c")
        self.assertEqual(handler._remove_punctuation("a.b,c!"), "abc")
        self.assertEqual(handler._remove_puncutation("a.b,c!"), "abc")
        self.assertEqual(handler._tokenize("Hello, World"), ["hello", ",", "world"])
        summary = handler.summarize_attributions(torch.tensor([[[1.0, 2.0], [4.0, 0.0]]]))
        np.testing.assert_allclose(summary.numpy(), [0.6, 0.8], rtol=1e-6)

    def test_hostile_markup(self) -> None:
        """A text of many unclosed tags is cleaned in linear time."""
        self.assertEqual(len(CLEANUP_REGEX.sub("", "<" * 2_000_000)), 2_000_000)

    def test_contractions(self) -> None:
        """There are some 120 contractions, and none is in the map's answers again."""
        self.assertGreater(len(CONTRACTION_MAP), 115)
        for short, long in CONTRACTION_MAP.items():
            self.assertEqual(short, short.lower())
            self.assertIn("'", short)
            self.assertNotIn("'", long)


class TokenizerTests(SynchronousTestCase):
    """torchtext's tools."""

    def test_basic_english(self) -> None:
        """Words and marks, in lower case, without quotes and line breaks of HTML."""
        tokenizer = get_tokenizer("basic_english")
        assert tokenizer is not None
        self.assertEqual(
            tokenizer("It's \"fine\"<br />isn't it; no: (yes)! Ok?, e.g."),
            [
                "it",
                "'",
                "s",
                "fine",
                "isn",
                "'",
                "t",
                "it",
                "no",
                "(",
                "yes",
                ")",
                "!",
                "ok",
                "?",
                ",",
                "e",
                ".",
                "g",
                ".",
            ],
        )

    def test_others(self) -> None:
        """No name splits at white space, a function is taken as it is, other names are not known."""
        split = get_tokenizer(None)
        assert split is not None
        self.assertEqual(split(" A b. "), ["A", "b."])
        self.assertIs(get_tokenizer(len), len)
        self.assertIsNone(get_tokenizer("spacy"))
        self.assertRaises(ValueError, get_tokenizer, "basic_english", "de")

    @given(lists(text(string.ascii_lowercase, min_size=1), max_size=8), integers(1, 4))
    def test_ngrams(self, tokens: list[str], n: int) -> None:
        """All runs of up to n neighbours come, the shorter ones first, each where it stands in the text."""
        found = list(ngrams_iterator(tokens, n))
        self.assertEqual(found[: len(tokens)], tokens)
        self.assertEqual(len(found), sum(max(len(tokens) - k + 1, 0) for k in range(1, n + 1)))
        self.assertEqual([each.count(" ") for each in found], sorted(each.count(" ") for each in found))
        if len(tokens) >= n:
            self.assertEqual(found[-1], " ".join(tokens[-n:]))
