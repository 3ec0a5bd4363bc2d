# SPDX-License-Identifier: Apache-2.0
"""Tests for names of models and versions that are more than ASCII letters: in paths, answers, metrics and logs."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.names import name_flaw
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.properties import parse_properties
from twisted_serve.testing.server import Answer, MemoryServer
from twisted_serve.testing.strategies.models import model_names

# Of routes that take any second segment: below them ``/{model_name}/predict`` is theirs.
SEGMENTS = ("predictions", "explanations", "wfpredict")


class NamesTests(SynchronousTestCase):
    """A server with one model in its store, which is registered under names of the test."""

    def setUp(self) -> None:
        self.server = MemoryServer({"models": {}}, snapshots=True)
        self.addCleanup(self.server.close)
        self.server.add_model("m", {})

    def manage(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = b"" if body is None else json.dumps(body).encode()
        return self.server.request(method, path, self.server.key(TokenKind.MANAGEMENT), headers, data)

    def predict(self, path: str) -> Answer:
        return self.server.request("POST", path, self.server.key(TokenKind.INFERENCE), body=b"x")

    # Each example is twenty requests.
    @settings(max_examples=15)
    @given(model_names(), st.booleans())
    @example("predictions", False)
    @example("models", True)
    def test_life(self, name: str, in_body: bool) -> None:
        """A model of any name is registered, listed, described, scaled, asked on every route, and removed."""
        path = quote(name, safe="")
        if in_body:
            answer = self.manage("POST", "/models", {"url": "m", "model_name": name})
        else:
            answer = self.manage("POST", f"/models?url=m&model_name={path}")
        self.assertEqual(answer.json, {"status": f'Model "{name}" Version: 1.0 registered with 1 initial workers'})
        self.assertEqual(self.manage("GET", "/models").json["models"], [{"modelName": name, "modelUrl": "m"}])
        self.assertEqual(self.manage("GET", f"/models/{path}").json[0]["modelName"], name)
        self.assertEqual(self.manage("GET", f"/models/{path}/all").json[0]["modelName"], name)
        self.assertEqual(self.manage("OPTIONS", f"/models/{path}").status, 200)
        self.assertEqual(self.manage("PUT", f"/models/{path}?min_worker=2&synchronous=true").status, 200)
        self.assertEqual(self.manage("PUT", f"/models/{path}/1.0/set-default").status, 200)
        for route in (
            f"/predictions/{path}",
            f"/predictions/{path}/1.0",
            f"/models/{path}/invoke",
            f"/{path}/predict",
            f"/v2/models/{path}/infer",
        ):
            if route == f"/{path}/predict" and name.lower() in SEGMENTS:
                # The path of another route, whose first segment comes before a name.
                continue
            # The last one wants tensors; that the model is found is what counts here.
            self.assertIn(self.predict(route).status, (200, 400, 503), route)
        self.assertEqual(self.predict(f"/predictions/{path}").body, b"x")
        metrics = self.server.request("GET", "/metrics", self.server.key(TokenKind.INFERENCE)).body.decode()
        label = name.replace("\\", "\\\\").replace('"', '\\"')
        self.assertIn(f'model_name="{label}"', metrics)
        self.assertEqual(self.manage("DELETE", f"/models/{path}").json, {"status": f'Model "{name}" unregistered'})
        self.assertEqual(self.manage("GET", "/models").json, {"models": []})

    def test_after_a_restart(self) -> None:
        """A snapshot brings such a model back."""
        self.manage("POST", "/models", {"url": "m", "model_name": "mon modèle"})
        [*_, last] = sorted((self.server.directory / "snapshots").iterdir())
        recorded = json.loads(parse_properties(last.read_bytes())["model_snapshot"])
        self.server.options = evolve(self.server.options, model_snapshot=recorded)
        self.server.restart()
        self.assertEqual(self.manage("GET", "/models").json["models"], [{"modelName": "mon modèle", "modelUrl": "m"}])
        self.assertEqual(self.predict("/predictions/mon%20mod%C3%A8le").body, b"x")

    def test_unregistered_spellings(self) -> None:
        """Another spelling of a name is another name, and bytes that are not UTF-8 are none: never an error of ours."""
        self.manage("POST", "/models", {"url": "m", "model_name": "modèle"})
        for path in (
            "mode%CC%80le",
            "mod%E8le",
            "mod%C3%A8le%20",
            "MOD%C3%88LE",
            "mod%c3",
            "mod%C0%A8le",
            "mod%ED%A0%80",
        ):
            for method, target in (
                ("GET", f"/models/{path}"),
                ("DELETE", f"/models/{path}"),
                ("PUT", f"/models/{path}?min_worker=1"),
                ("POST", f"/predictions/{path}"),
                ("GET", f"/v2/models/{path}/ready"),
            ):
                key = TokenKind.MANAGEMENT if target.startswith("/models") else TokenKind.INFERENCE
                answer = self.server.request(method, target, self.server.key(key))
                self.assertIn(answer.status, (400, 404), (method, target))
        self.assertEqual(self.predict("/predictions/mod%C3%A8le").status, 200)
        # The bytes may also stand there as they are.
        self.assertEqual(self.predict("/predictions/modèle").status, 200)

    def test_attacks(self) -> None:
        """A name that would be read as something else is refused on each way in, and nothing of it is in the log."""
        for name in (
            "a\r\nX-Evil: 1",
            "a\n[ERROR] all is lost",
            "a\u202eelor",
            "a/../b",
            "a%2f..",
            "m:predict",
            "a\x1b[2J",
        ):
            with capturedLogs() as events:
                answers = [
                    self.manage("POST", "/models", {"url": "m", "model_name": name}),
                    self.manage("POST", f"/models?url=m&model_name={quote(name, safe='')}"),
                ]
                manifest = json.dumps({"model": {"modelName": name, "handler": "handler.py"}})
                self.server.add_model("evil", {"MAR-INF/MANIFEST.json": manifest})
                answers.append(self.manage("POST", "/models?url=evil"))
            for answer in answers:
                self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"))
                self.assertIn(f"Model name {name!r:.300} is not valid", answer.json["message"])
                self.assertNotIn("X-Evil", answer.headers)
            lines = [str(formatEvent(event)) for event in events]
            self.assertFalse([line for line in lines if any(c in line for c in "\r\n\u202e\x1b")], lines)
        self.assertEqual(self.manage("GET", "/models").json, {"models": []})

    @given(st.text(max_size=8))
    def test_any_text(self, name: str) -> None:
        """Whatever is asked for as a name is registered and can be removed, or is refused with 400."""
        answer = self.manage("POST", "/models", {"url": "m", "model_name": name})
        registered = [model["modelName"] for model in self.manage("GET", "/models").json["models"]]
        if name and name_flaw(name) is not None:
            self.assertEqual((answer.status, registered), (400, []))
            return
        # An empty name is none: the manifest's counts.
        self.assertEqual((answer.status, registered), (200, [name or "m"]))
        self.assertEqual(self.manage("DELETE", f"/models/{quote(name or 'm', safe='')}").status, 200)

    def test_versions(self) -> None:
        """A version that cannot stand in a path is refused with field and value."""
        for version in ("1/2", "1%2f2", "1?x", "1#x", "all", "set-default", "invoke", "..", "1\n"):
            manifest = json.dumps({"model": {"modelName": "m", "modelVersion": version, "handler": "handler.py"}})
            self.server.add_model("v", {"MAR-INF/MANIFEST.json": manifest})
            answer = self.manage("POST", "/models?url=v")
            self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"))
            self.assertIn(f"Model version {version!r} is not valid", answer.json["message"])
        self.assertEqual(self.manage("GET", "/models").json, {"models": []})

    def test_shared_listener(self) -> None:
        """Where management and inference share an address, no name and no version opens management to inference."""
        key = self.server.key(TokenKind.INFERENCE)
        self.manage("POST", "/models", {"url": "m", "model_name": "modèle"})
        for method, target in (
            ("DELETE", "/models/mod%C3%A8le"),
            ("DELETE", "/models/mod%C3%A8le/1.0"),
            ("PUT", "/models/mod%C3%A8le/1.0/set-default"),
            ("DELETE", "/models/invoke/1.0"),
        ):
            self.assertEqual(self.server.request(method, target, key).status, 400, target)
        self.assertEqual(self.predict("/predictions/mod%C3%A8le").status, 200)
