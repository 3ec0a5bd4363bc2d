# SPDX-License-Identifier: Apache-2.0
"""
Whatever is asked of any route, the answer is one that the description knows: nothing else, no traceback, no hang.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.testing.server import MemoryServer, Role

ONE = "http://127.0.0.1:8080"

FORM = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--'

# Of a method that a route does not have.
NOT_ALLOWED = 405

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def tensors() -> st.SearchStrategy[Any]:
    """Build what is nearly a request for inference."""
    members = {
        "name": st.just("x") | JSON_VALUES,
        "shape": st.lists(st.integers(-2, 3), max_size=2) | JSON_VALUES,
        "datatype": st.sampled_from(["INT8", "BYTES", "FP16"]) | JSON_VALUES,
        "data": st.lists(st.integers(-1, 300) | st.text(max_size=2), max_size=4) | JSON_VALUES,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9)}) | JSON_VALUES,
    }
    return st.fixed_dictionaries(
        {"inputs": st.lists(st.fixed_dictionaries({}, optional=members), max_size=2) | JSON_VALUES}
    )


def bodies() -> st.SearchStrategy[bytes]:
    """Build bodies: JSON, what is nearly JSON, forms, anything."""
    written = (JSON_VALUES | tensors()).map(lambda value: json.dumps(value).encode())
    return st.one_of(
        st.binary(max_size=40),
        written,
        written.map(lambda text: text[:-1]),
        st.builds(lambda text, more: text + more, written, st.binary(max_size=12)),
        st.sampled_from(
            [b"a=1&b=%ff", b"--x\r\n", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--']
        ),
    )


def headers() -> st.SearchStrategy[dict[str, str]]:
    """Build headers which say something of a body, true or not."""
    return st.fixed_dictionaries(
        {},
        optional={
            "Content-Type": st.sampled_from(
                [
                    "application/json",
                    "application/octet-stream",
                    "application/x-www-form-urlencoded",
                    "multipart/form-data; boundary=x",
                    "multipart/form-data; boundary=",
                    ";",
                ]
            ),
            "Inference-Header-Content-Length": st.sampled_from(["0", "2", "14", "-1", "x", "99999999999999999999"]),
            "X-Request-Timeout-Ms": st.sampled_from(["1000", "0", "x"]),
            "Accept-Encoding": st.just("gzip"),
            "Content-Encoding": st.sampled_from(["gzip", "deflate", "identity", "br"]),
        },
    )


def queries() -> st.SearchStrategy[str]:
    """Build queries with parameters that routes know, and values which they may not expect."""
    names = [
        "url",
        "min_worker",
        "max_worker",
        "limit",
        "next_page_token",
        "type",
        "customized",
        "model_name",
        "workflow_name",
        "name[]",
        "x",
    ]
    values = st.sampled_from(["", "1", "-1", "true", "m", "nan", "9" * 30, "%ff", "%", "..", "http://h/x.mar"])
    pairs = st.lists(st.tuples(st.sampled_from(names), values), max_size=3)
    return pairs.map(lambda some: "&".join(f"{name}={value}" for name, value in some))


class DescribedAnswersTests(SynchronousTestCase):
    """Tests for all routes of a listener which has them all."""

    def setUp(self) -> None:
        self.server = MemoryServer(
            {
                "inference_address": ONE,
                "management_address": ONE,
                "metrics_address": ONE,
                "ts_open_inference_protocol": True,
                "service_envelope": "kservev2",
            },
            models={"m": {}},
        )
        self.addCleanup(self.server.close)
        self.server.add_workflow("m", "models: {f: {url: m}}\ndag: {f: []}")
        registered = self.server.request("POST", "/workflows?url=m", self.server.key(TokenKind.MANAGEMENT))
        self.assertEqual(registered.status, 200)
        self.document = self.server.request("OPTIONS", "/", role=Role.INFERENCE).json
        self.operations = [
            (path, method, operation)
            for path, operations in sorted(self.document["paths"].items())
            for method, operation in operations.items()
        ]

    def key_of(self, operation: dict[str, Any]) -> str | None:
        """Return the key which an operation needs."""
        kinds = [TokenKind(name) for need in operation.get("security", ()) for name in need]
        return self.server.key(kinds[0]) if kinds else None

    @given(st.data(), bodies(), headers(), queries())
    def test_only_described(self, data: st.DataObject, body: bytes, said: dict[str, str], query: str) -> None:
        """Every answer has a described status, and an error is the error object."""
        path, method, operation = data.draw(st.sampled_from(self.operations))
        model = data.draw(st.sampled_from(["m", "m", "absent", "%F0%9F%90%8D"]))
        target = path.replace("{model_name}", model).replace("{workflow_name}", model).replace("{url_path}", "a/b")
        target = target.replace("{model_version}", data.draw(st.sampled_from(["1.0", "1.0", "9", "all"])))
        key = self.key_of(operation)
        answer = self.server.request(method.upper(), f"{target}?{query}", key, said, body, Role.INFERENCE)
        described = {int(code) for code in operation["responses"]}
        if body and said.get("Content-Encoding", "identity") != "identity":
            # Nearly no body is what it says; that is refused before the route is asked.
            described |= {400, 415}
        self.assertIn(answer.status, described | {413}, (method, target, query, said, body, answer))
        if answer.status >= 400 and answer.headers.get("content-type") == "application/json":
            self.assertNotIn(b"Traceback", answer.body)
            if str(answer.status) in operation["responses"] and "code" in answer.json:
                self.assertEqual(answer.json["code"], answer.status)

    @given(st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "OPTIONS", "NONSENSE"]), st.data())
    def test_other_methods(self, method: str, data: st.DataObject) -> None:
        """A method that a path does not have is refused or, where any will do, answered like another."""
        path, _method, operation = data.draw(st.sampled_from(self.operations))
        target = path.replace("{model_name}", "m").replace("{workflow_name}", "m").replace("{model_version}", "1.0")
        target = target.replace("{url_path}", "a")
        key = self.key_of(operation)
        if method.lower() not in self.document["paths"][path]:
            answer = self.server.request(method, target, key, role=Role.INFERENCE)
            self.assertIn(answer.status, {200, 400, NOT_ALLOWED}, (method, target, answer))
