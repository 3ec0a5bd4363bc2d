# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.workflows.spec`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import InvalidDag, InvalidWorkflow
from twisted_serve.workflows.spec import MOST_NODES, NodeSettings, load_spec, read_spec

DOCUMENT = """
models:
  min-workers: 2
  batch-size: 4
  first:
    url: first.mar
    retry-attempts: 3
  timeout-ms: 500
  max-workers: 3
  second:
    url: https://host/second.mar
    max-workers: 7
    unknown: 1
dag:
  prepare: [first, " ", second]
  first: [finish]
  second: [finish]
"""


class SpecTests(SynchronousTestCase):
    """Tests for specifications."""

    def assertRefused(self, document: Any, reason: str) -> None:
        error = self.assertRaises(InvalidWorkflow, read_spec, document)
        self.assertEqual((error.status, error.message), (500, "Failed to parse yaml."))
        self.assertIn(reason, error.reason or "")

    def test_order(self) -> None:
        """A setting for all models applies to those after it; a model's own setting takes precedence."""
        spec = read_spec(yaml.safe_load(DOCUMENT))
        self.assertEqual(spec.nodes["first"].settings, NodeSettings(2, 1, 4, 50, 3, 10_000))
        self.assertEqual(spec.nodes["second"].settings, NodeSettings(2, 7, 4, 50, 1, 500))
        self.assertEqual(spec.settings, NodeSettings(2, 3, 4, 50, 1, 500))
        self.assertEqual((spec.nodes["first"].url, spec.nodes["second"].url), ("first.mar", "https://host/second.mar"))

    def test_functions(self) -> None:
        """A name that only the graph has is a function, with one worker and no batches; times are as said for all."""
        spec = read_spec(yaml.safe_load(DOCUMENT))
        self.assertEqual(spec.functions, ("prepare", "finish"))
        self.assertEqual(spec.nodes["prepare"].settings, NodeSettings(1, 1, 1, 0, 1, 500))

    def test_function_with_settings(self) -> None:
        """A model without a URL is a function with its own settings."""
        spec = read_spec({"models": {"f": {"max-workers": 2}}, "dag": {"f": []}})
        self.assertEqual((spec.functions, spec.nodes["f"].settings.max_workers), (("f",), 2))

    def test_blank(self) -> None:
        """Blank names after a node do not count, and a leaf may have nothing at all."""
        spec = read_spec({"models": None, "dag": {"a": ["", "b"], "b": None}})
        self.assertEqual(str(spec.dag), "{a=[b], b=[]}")

    def test_unused(self) -> None:
        """A model that is not in the graph is reported."""
        self.assertEqual(read_spec({"models": {"m": {"url": "m.mar"}}, "dag": {"a": []}}).unused, ("m",))

    def test_refused(self) -> None:
        """What is wrong is named: place, value, and what was expected."""
        for document, reason in (
            (None, "the document is None, expected a mapping"),
            ([], "the document is [], expected a mapping"),
            ({"models": []}, "dag is None, expected a mapping"),
            ({"models": [1], "dag": {"a": []}}, "models is [1], expected a mapping"),
            ({"dag": {1: []}}, "expected a mapping with strings as keys"),
            ({"dag": {"a": "b"}}, "dag.a is 'b', expected a list of names"),
            ({"dag": {"a": [1]}}, "dag.a is [1], expected a list of names"),
            (
                {"dag": {"a": ["b/../c"]}},
                "dag.a is 'b/../c', expected a name of at most 200 characters: it contains '/'",
            ),
            ({"dag": {"a:b": []}}, "dag is 'a:b', expected a name of at most 200 characters: it contains ':'"),
            ({"dag": {"a-b": []}}, "'a-b', which is neither in models nor the name of a function"),
            ({"models": {"m": 1}, "dag": {"m": []}}, "models.m is 1, expected a mapping"),
            ({"models": {"m": {"url": 1}}, "dag": {"m": []}}, "models.m.url is 1, expected the name or URL"),
            ({"models": {"batch-size": 0}, "dag": {"m": []}}, "batch-size is 0, expected an integer of at least 1"),
            ({"models": {"batch-size": True}, "dag": {"m": []}}, "batch-size is True, expected an integer"),
            (
                {"models": {"m": {"url": "m", "retry-attempts": 101}}, "dag": {"m": []}},
                "models.m.retry-attempts is 101, expected an integer from 0 to 100",
            ),
            ({"models": {"m": {"timeout-ms": "1s"}}, "dag": {"m": []}}, "models.m.timeout-ms is '1s', expected"),
            ({"dag": {f"n{at}": [f"n{at + 1}"] for at in range(MOST_NODES)}}, f"dag has {MOST_NODES + 1} nodes"),
        ):
            self.assertRefused(document, reason)
        self.assertRaises(InvalidDag, read_spec, {"dag": {"a": ["a"]}})

    def test_files(self) -> None:
        """A specification is read from a file; one that is no YAML, makes objects or is missing is refused."""
        with TemporaryDirectory() as directory:
            path = Path(directory, "spec.yaml")
            path.write_text(DOCUMENT)
            self.assertEqual(len(load_spec(path).nodes), 4)
            for text in ("a: [", "!!python/object/apply:os.system [id]", "a: &a [*a]", "", "\0"):
                path.write_text(text)
                self.assertRaises(InvalidWorkflow, load_spec, path)
            error = self.assertRaises(InvalidWorkflow, load_spec, Path(directory, "gone.yaml"))
            self.assertEqual(error.reason, "gone.yaml: No such file or directory")

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["models", "dag", "a", "b", "url", "batch-size", "timeout-ms"]) | st.integers(),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_anything(self, document: Any) -> None:
        """Whatever a document says, it is a workflow or is refused with a reason."""
        try:
            spec = read_spec(document)
        except (InvalidWorkflow, InvalidDag) as e:
            self.assertTrue(e.reason)
        else:
            self.assertEqual(set(spec.nodes), set(spec.dag.nodes))
