# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.context` and `twisted_serve.handlers.mock_context`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers import mock_context
from twisted_serve.handlers.context import Context, RequestProcessor
from twisted_serve.handlers.mock_context import MockContext
from twisted_serve.handlers.streaming import send_intermediate_predict_response


def context(**fields: Any) -> Context:
    return Context("m", "/models/m", {"model": {}}, 4, 1, "0.1.0", **fields)


class ContextTests(SynchronousTestCase):
    """Tests for `Context`."""

    def setUp(self) -> None:
        self.context = context()
        self.context.begin_batch(["a", "b"], [{"X-Who": "first", "x-who": "same"}, {"explain": "True"}])

    def test_properties(self) -> None:
        """A handler knows its model, directory and device."""
        self.assertEqual(
            self.context.system_properties,
            {
                "model_dir": "/models/m",
                "gpu_id": 1,
                "batch_size": 4,
                "server_name": "MMS",
                "server_version": "0.1.0",
                "limit_max_image_pixels": True,
            },
        )
        self.assertEqual(self.context.manifest, {"model": {}})

    def test_before_any_batch(self) -> None:
        """While it is initialized a handler has no requests."""
        fresh = context()
        self.assertIsNone(fresh.request_ids)
        self.assertIsNone(fresh.get_request_id(0))
        self.assertFalse(fresh.is_cancelled())
        self.assertRaises(ValueError, fresh.send_chunk, "a", b"")

    def test_other_ranks(self) -> None:
        """Of several processes of one worker only the first sends."""
        self.patch(os, "environ", {**os.environ, "LOCAL_RANK": "1"})
        send_intermediate_predict_response(["x"], {0: "a"}, "Intermediate", 200, context())
        self.patch(os, "environ", {**os.environ, "LOCAL_RANK": "0"})
        self.assertRaises(
            ValueError, send_intermediate_predict_response, ["x"], {0: "a"}, "Intermediate", 200, context()
        )

    def test_ids(self) -> None:
        """Requests are known by their position."""
        self.assertEqual(self.context.request_ids, {0: "a", 1: "b"})
        self.assertEqual(self.context.get_request_id(1), "b")
        self.assertIsNone(self.context.get_request_id(2))

    def test_headers(self) -> None:
        """A header is found as it was spelled, else in any spelling."""
        self.assertEqual(self.context.get_request_header(0, "X-Who"), "first")
        self.assertEqual(self.context.get_request_header(0, "x-who"), "same")
        self.assertEqual(self.context.get_request_header(0, "X-WHO"), "same")
        self.assertIsNone(self.context.get_request_header(0, "X-When"))
        self.assertEqual(self.context.get_all_request_header(1), {"explain": "True"})

    def test_server_headers(self) -> None:
        """No spelling of a client's header stands in for what the server says."""
        self.context.begin_batch(["a"], [{"Explain": "True", "DESCRIBE": "True", "Url_Path": "x"}])
        for name in ("explain", "describe", "url_path"):
            self.assertIsNone(self.context.get_request_header(0, name))

    def test_responses(self) -> None:
        """Status and headers set for a response can be read back, and apply to that response only."""
        self.context.set_response_status(404, "Gone", 1)
        self.context.set_response_content_type(1, "text/plain")
        self.context.set_response_header(1, "X-A", "b")
        self.assertEqual(self.context.get_response_status(1), (404, "Gone"))
        self.assertEqual(self.context.get_response_content_type(1), "text/plain")
        self.assertEqual(self.context.get_response_headers(1), {"content-type": "text/plain", "X-A": "b"})
        self.assertEqual(self.context.get_response_status(0), (200, None))
        self.assertIsNone(self.context.get_response_content_type(0))
        self.context.set_all_response_status(500)
        self.assertEqual([self.context.get_response_status(each) for each in (0, 1)], [(500, ""), (500, "")])

    def test_next_batch(self) -> None:
        """A new batch begins clean, except for what the handler keeps on the context itself."""

        def ends(result: object) -> bool:
            return True

        self.context.set_all_response_status(500)
        self.context.stopping_criteria = [ends]
        self.context.cache = {"a": 1}  # type: ignore[attr-defined]
        self.context.begin_batch(["c"], [{}])
        self.assertEqual(self.context.get_response_status(0), (200, None))
        self.assertEqual(self.context.stopping_criteria, [ends])
        self.assertEqual(self.context.cache, {"a": 1})  # type: ignore[attr-defined]

    def test_own_headers(self) -> None:
        """Changes that a handler makes to its headers do not reach the caller's dict."""
        given = {"a": "b"}
        self.context.begin_batch(["a"], [given])
        self.context.get_all_request_header(0).clear()
        self.assertEqual(given, {"a": "b"})

    def test_sequence(self) -> None:
        """A request's sequence is in the header that the environment names."""
        self.context.begin_batch(["a"], [{"ts_request_sequence_id": "s1"}])
        self.assertEqual(self.context.get_sequence_id(0), "s1")

    def test_equality(self) -> None:
        """Contexts are equal if all they hold is."""
        self.assertEqual(context(), context())
        self.assertNotEqual(context(), context(model_yaml_config={"a": 1}))
        self.assertNotEqual(context(), 1)

    def test_private_names(self) -> None:
        """Underscored attributes that published handlers use exist, and are the same objects."""
        made = context(limit_max_image_pixels=False)
        made.begin_batch(["a"], [{"X-T": "v"}])
        self.assertEqual(made._request_processor[0].get_request_property("X-T"), "v")
        made._request_processor[0].add_response_property("X-A", "b")
        self.assertEqual(made.get_response_headers(0), {"X-A": "b"})
        made._request_processor = [RequestProcessor({"X-T": "w"})]
        self.assertEqual(made.get_request_header(0, "X-T"), "w")
        made._metrics = 3
        self.assertEqual((made.metrics, made._metrics), (3, 3))
        self.assertFalse(made._limit_max_image_pixels)

    def test_request_processor(self) -> None:
        """The older interface, of one request, works by itself."""
        processor = RequestProcessor({"a": "b"})
        processor.report_status(201, "Made")
        processor.add_response_property("x", "y")
        self.assertEqual(processor.get_request_property("a"), "b")
        self.assertEqual(processor.get_request_properties(), {"a": "b"})
        self.assertEqual(processor.get_response_status_code(), 201)
        self.assertEqual(processor.get_response_status_phrase(), "Made")
        self.assertEqual(processor.get_response_header("x"), "y")


class MockContextTests(SynchronousTestCase):
    """The context of handlers' own tests."""

    def test_defaults(self) -> None:
        """Without arguments it names the files that examples name."""
        found = MockContext()
        expected = {"model": {"modelName": "mnist", "serializedFile": "model.pt", "modelFile": "model.py"}}
        self.assertEqual(found.manifest, expected)
        self.assertEqual(found.system_properties["model_dir"], "ts/torch_handler/unit_tests/models/tmp")
        self.assertEqual(found.model_yaml_config, {})
        found.metrics.add_counter("Things", 1)

    def test_given(self) -> None:
        """Files that are not there are not named; settings are read."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "c.yaml").write_text("handler: {profile: true}\n")
        found = MockContext(model_file=None, model_dir=directory, model_yaml_config_file="c.yaml", gpu_id=None)
        self.assertEqual(found.manifest, {"model": {"modelName": "mnist", "serializedFile": "model.pt"}})
        self.assertEqual(found.model_yaml_config, {"handler": {"profile": True}})

    def test_device(self) -> None:
        """A device is named where there is one."""
        self.patch(mock_context, "cuda_available", lambda: True)
        self.assertEqual(MockContext().system_properties["gpu_id"], "0")
        self.patch(mock_context, "cuda_available", lambda: False)
        self.assertNotIn("gpu_id", MockContext().system_properties)

    def test_explain(self) -> None:
        """Headers say nothing but that an explanation is wanted, of any request but the first."""
        found = MockContext()
        self.assertFalse(found.get_request_header(1, "explain"))
        found.explain = True
        self.assertTrue(found.get_request_header(1, "explain"))
        self.assertFalse(found.get_request_header(0, "explain"))
