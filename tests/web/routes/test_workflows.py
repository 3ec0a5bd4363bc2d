# SPDX-License-Identifier: Apache-2.0
"""
The routes of workflows, against the whole server in memory.
"""

from __future__ import annotations

import json
from typing import Any

from tests.web.routes.workflow_case import SPECIFICATION, WorkflowTestCase
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.server import NoAnswerYet, Role
from twisted_serve.testing.strategies.archives import ArchiveEntry, tar_archive, zip_archive


class RegisterTests(WorkflowTestCase):
    """Tests for ``POST /workflows``."""

    def test_registered(self) -> None:
        """A workflow is registered with all its nodes, each a model with its workers."""
        answer = self.manage("POST", "/workflows?url=w")
        self.assertEqual(
            (answer.status, answer.json),
            (200, {"status": "Workflow w has been registered and scaled successfully."}),
        )
        model = self.manage("GET", "/models/w__model").json[0]
        self.assertEqual((model["minWorkers"], model["maxWorkers"], len(model["workers"])), (2, 2, 2))
        self.assertEqual((model["batchSize"], model["maxBatchDelay"], model["modelUrl"]), (4, 5, "m"))
        function = self.manage("GET", "/models/w__before").json[0]
        self.assertEqual((function["modelVersion"], len(function["workers"])), ("1.0", 1))
        self.assertEqual((function["batchSize"], function["maxBatchDelay"], function["modelUrl"]), (1, 0, ""))
        [spec] = [w.spec for w in self.server.provider.workers if w.spec.load.model_name == "w__before"]
        self.assertEqual((spec.load.handler, spec.model_dir.name), ("functions.py:before", "w"))

    def test_functions_are_hidden(self) -> None:
        """Functions are not listed with the models, nor do they take a place on a page."""
        self.manage("POST", "/workflows?url=w")
        self.assertEqual(
            self.manage("GET", "/models?limit=1").json, {"models": [{"modelName": "w__model", "modelUrl": "m"}]}
        )
        self.assertEqual(self.manage("GET", "/v1/models").json, {"models": ["w__model"]})

    def test_parameters(self) -> None:
        """Name and time limits may be asked for, in the query or in a JSON body."""
        body = {"url": "w", "workflow_name": "other", "response_timeout": 7, "startup_timeout": "9"}
        self.assertEqual(self.manage("POST", "/workflows", body).status, 200)
        described = self.manage("GET", "/models/other__after").json[0]
        self.assertEqual((described["responseTimeout"], described["startupTimeout"]), (7, 9))

    def test_link(self) -> None:
        """A workflow of the store may be a link, as a model may; below a link, clients find nothing."""
        store, elsewhere = self.server.directory / "models", self.server.directory / "elsewhere"
        elsewhere.mkdir()
        (store / "w").rename(elsewhere / "w")
        (store / "v").symlink_to("../elsewhere/w")
        (store / "all").symlink_to("../elsewhere")
        self.assertEqual(self.manage("POST", "/workflows?url=all/w").status, 404)
        self.assertEqual(self.manage("POST", "/workflows?url=v").status, 200)

    def test_refused(self) -> None:
        """What cannot be registered is refused with the predecessor's status and words, and nothing is left."""
        for query, status, kind, message in (
            ("", 400, "BadRequestException", "Parameter url is required."),
            ("?url=", 404, "WorkflowNotFoundException", "empty url"),
            ("?url=gone.war", 404, "WorkflowNotFoundException", "Workflow not found in workflow store: gone.war"),
            ("?url=..%2Fw", 404, "WorkflowNotFoundException", "Relative path is not allowed in url: ../w"),
            (
                "?url=file:///etc/w.war",
                404,
                "WorkflowNotFoundException",
                "Given URL file:///etc/w.war does not match any allowed URL(s)",
            ),
            ("?url=m", 500, "InvalidWorkflowException", "Failed to parse WAR-INF/MANIFEST.json."),
        ):
            self.assertError(self.manage("POST", f"/workflows{query}"), status, kind, message)
        answer = self.manage("POST", "/workflows?url=w&workflow_name=a%0Ab")
        self.assertEqual((answer.status, answer.json["type"]), (400, "BadRequestException"))
        self.assertNothing()

    def test_twice(self) -> None:
        """There is one workflow of a name; the first goes on."""
        self.manage("POST", "/workflows?url=w")
        self.assertError(
            self.manage("POST", "/workflows?url=w"), 409, "ConflictStatusException", "Workflow w is already registered."
        )
        self.assertEqual(self.predict().status, 200)

    def test_twice_at_once(self) -> None:
        """So it is while the first is still coming."""
        self.server.provider.load_delay = 5
        coming = self.server.send("POST", "/workflows?url=w", self.server.key(TokenKind.MANAGEMENT))
        self.assertEqual(self.manage("POST", "/workflows?url=w").status, 409)
        self.assertError(self.predict(), 404, "WorkflowNotFoundException", "Workflow not found: w")
        self.server.advance(5)
        self.assertEqual(self.server.answered(coming).status, 200)

    def test_bad_graphs(self) -> None:
        """A graph that never ends, or never begins, is refused by the names of its nodes."""
        for dag, message, reason in (
            ("{a: [b], b: [c], c: [b]}", "Not a valid DAG", "is a cycle"),
            ("{a: [a]}", "Self loop exception", "a comes after itself"),
            ("{a: [b, b]}", "loop exception", "b comes after a twice"),
            ("{a: [c], b: [c]}", "DAG should have only one start node", "the start nodes are a, b"),
        ):
            self.server.add_workflow("w", f"models: {{}}\ndag: {dag}\n")
            self.assertError(self.manage("POST", "/workflows?url=w"), 400, "InvalidDAGException", message, reason)
        self.assertNothing()

    def test_missing_model(self) -> None:
        """A model that is not there is named, and no other node stays."""
        self.server.add_workflow("w", SPECIFICATION.replace("url: m", "url: gone.mar"))
        self.assertError(
            self.manage("POST", "/workflows?url=w"),
            500,
            "WorkflowException",
            "Workflow w has failed to register. Failures: "
            "[Workflow Node w__model failed to register. Details: Model not found at: gone.mar]",
        )
        self.assertNothing()

    def test_not_started(self) -> None:
        """A node whose workers do not start is named with the reason; the nodes that did start go."""
        self.server.provider.load_delay = None
        coming = self.server.send("POST", "/workflows?url=w", self.server.key(TokenKind.MANAGEMENT))
        for worker in list(self.server.provider.workers):
            if worker.spec.load.model_name == "w__after":
                worker.fail_to_load(WorkerFailed(500, "no function 'after'"))
            else:
                worker.load()
        self.assertError(
            self.server.answered(coming),
            500,
            "WorkflowException",
            "Workflow w has failed to register. Failures: [Failed to start workers for model w__after version: 1.0]",
            "no function 'after'",
        )
        self.assertNothing()

    def test_name_taken(self) -> None:
        """A node does not take the place of a model that somebody has registered: that one stays, the others go."""
        self.manage("POST", "/models?url=m&model_name=w__model&initial_workers=1")
        answer = self.manage("POST", "/workflows?url=w")
        self.assertEqual(answer.status, 500)
        self.assertIn("is already registered for model w__model", answer.json["message"])
        self.assertEqual([model.name for model, _ in self.catalogue()], ["w__model"])

    def test_too_many_workers(self) -> None:
        """A number of workers which no machine has room for is refused."""
        self.server.add_workflow("w", SPECIFICATION.replace("max-workers: 2", "max-workers: 5000"))
        answer = self.manage("POST", "/workflows?url=w")
        self.assertIn("max-workers must be at most 1024, not 5000.", answer.json["message"])
        self.assertNothing()

    def test_archives(self) -> None:
        """A workflow may be a zip or a tar; what was unpacked goes with it."""
        store = self.server.directory / "models"
        entries = [
            ArchiveEntry(str(path.relative_to(store / "w")), path.read_bytes())
            for path in sorted((store / "w").rglob("*"))
            if path.is_file()
        ]
        (store / "z.war").write_bytes(zip_archive(entries))
        (store / "t.tar.gz").write_bytes(tar_archive(entries))
        (store / "flat.tar.gz").write_bytes(tar_archive(entries, top=None))
        for url in ("z.war", "t.tar.gz", "flat.tar.gz"):
            self.assertEqual(self.manage("POST", f"/workflows?url={url}").status, 200)
            self.assertEqual(self.predict().body, b"in before model after")
            self.assertEqual(len(list(self.server.directory.glob("twisted_serve-*/workflows/*"))), 1)
            self.assertEqual(self.manage("DELETE", "/workflows/w").status, 200)
            self.assertNothing()

    def test_bad_archives(self) -> None:
        """An archive that is none, or reaches outside of itself, is refused, and nothing of it stays."""
        store = self.server.directory / "models"
        good = {"createdOn": "x", "archiverVersion": "1", "workflow": {"workflowName": "w", "specFile": "s.yaml"}}
        spec = ArchiveEntry("s.yaml", b"dag: {f: []}")

        def war(**changed: Any) -> bytes:
            manifest = {**good, **changed}
            return zip_archive([spec, ArchiveEntry("WAR-INF/MANIFEST.json", json.dumps(manifest).encode())])

        for data, message in (
            (b"junk", "bad.war is not a valid zip archive"),
            (zip_archive([ArchiveEntry("../evil.py", b"")]), "unsafe name '../evil.py'"),
            (war(workflow=None), "Missing Workflow entry in manifest file."),
            (war(workflow={"specFile": "s.yaml"}), "Workflow name is not defined."),
            (war(workflow={"workflowName": "w"}), "Workflow specification file is not defined."),
            (war(workflow={"workflowName": 1}), "Manifest entry workflowName is 1, expected a string."),
            (war(archiverVersion=""), "Workflow archive version is not defined."),
            (war(createdOn=None), "Workflow archive createdOn is not defined."),
            (
                war(workflow={"workflowName": "w", "specFile": "../../../../etc/passwd"}),
                "not inside the model directory",
            ),
            (war(workflow={"workflowName": "w", "specFile": "s.yaml", "handler": "/etc/x.py"}), "not inside"),
            (war(workflow={"workflowName": "w", "specFile": "s.yaml", "handler": "gone.py"}), "there is no such file"),
            (war(workflow={"workflowName": "w", "specFile": "gone"}), "Failed to parse yaml."),
            (war(), "The archive has no handler, and these nodes need one: f."),
        ):
            (store / "bad.war").write_bytes(data)
            answer = self.manage("POST", "/workflows?url=bad.war")
            self.assertEqual((answer.status, answer.json["type"]), (500, "InvalidWorkflowException"), answer)
            self.assertIn(message, answer.json["message"])
            self.assertNothing()


class ManageTests(WorkflowTestCase):
    """Tests for lists, descriptions, and the end of workflows."""

    def test_described(self) -> None:
        """A description has the graph as Java writes it."""
        self.manage("POST", "/workflows?url=w")
        self.assertEqual(
            self.manage("GET", "/workflows/w").json,
            [
                {
                    "workflowName": "w",
                    "workflowUrl": "w",
                    "minWorkers": 1,
                    "maxWorkers": 2,
                    "batchSize": 4,
                    "maxBatchDelay": 5,
                    "workflowDag": "{before=[model], model=[after]}",
                }
            ],
        )

    def test_listed(self) -> None:
        """Workflows are listed by name, a page at a time."""
        for name in ("b", "c", "a"):
            self.manage("POST", f"/workflows?url=w&workflow_name={name}")
        self.assertEqual(
            self.manage("GET", "/workflows?limit=2").json,
            {
                "nextPageToken": "2",
                "workflows": [{"workflowName": name, "workflowUrl": "w"} for name in ("a", "b")],
            },
        )
        self.assertEqual(
            self.manage("GET", "/workflows?limit=2&next_page_token=2").json,
            {"workflows": [{"workflowName": "c", "workflowUrl": "w"}]},
        )
        for query in ("limit=0", "limit=-1", "limit=101", "limit=x", "next_page_token=-3"):
            self.assertEqual(len(self.manage("GET", f"/workflows?{query}").json["workflows"]), 3, query)

    def test_unregistered(self) -> None:
        """A workflow goes with all its nodes; it can come again."""
        for _ in range(2):
            self.manage("POST", "/workflows?url=w")
            answer = self.manage("DELETE", "/workflows/w")
            self.assertEqual((answer.status, answer.json), (200, {"status": 'Workflow "w" unregistered'}))
            self.assertNothing()

    def test_unregistered_while_answering(self) -> None:
        """What is being answered is answered to its end, by nodes that come later, too; then the nodes go."""
        self.manage("POST", "/workflows?url=w")
        self.server.provider.answer_delay = 1
        waiting = self.server.send("POST", "/wfpredict/w", self.server.key(TokenKind.INFERENCE), body=b"in")
        going = self.server.send("DELETE", "/workflows/w", self.server.key(TokenKind.MANAGEMENT))
        self.assertError(self.predict(), 404, "WorkflowNotFoundException", "Workflow not found: w")
        for _ in range(3):
            self.assertRaises(NoAnswerYet, self.server.answered, going)
            self.server.advance(1)
        self.assertEqual(self.server.answered(waiting).body, b"in before model after")
        self.assertEqual(self.server.answered(going).status, 200)
        self.assertNothing()

    def test_without_a_node(self) -> None:
        """If somebody has unregistered a node, requests say which; the rest goes with the workflow."""
        self.manage("POST", "/workflows?url=w")
        self.manage("DELETE", "/models/w__model")
        self.assertError(
            self.predict(), 500, "InternalServerException", "Error executing model", "Model not found: w__model"
        )
        self.assertEqual(self.manage("DELETE", "/workflows/w").status, 200)
        self.assertNothing()

    def test_unknown(self) -> None:
        """A workflow that is not there is 404, by name."""
        for method in ("GET", "DELETE"):
            self.assertError(
                self.manage(method, "/workflows/x"), 404, "WorkflowNotFoundException", "Workflow not found: x"
            )
        self.assertError(self.predict("/wfpredict/x"), 404, "WorkflowNotFoundException", "Workflow not found: x")
        for path in ("/workflows/a/b/c", "/wfpredict"):
            role = Role.MANAGEMENT if path.startswith("/workflows") else Role.INFERENCE
            kind = TokenKind.MANAGEMENT if role is Role.MANAGEMENT else TokenKind.INFERENCE
            answer = self.server.request("GET", path, self.server.key(kind), role=role)
            self.assertEqual((answer.status, answer.json["type"]), (404, "ResourceNotFoundException"))

    def test_methods(self) -> None:
        """Other methods are refused."""
        for method, path in (("PUT", "/workflows"), ("DELETE", "/workflows"), ("POST", "/workflows/w")):
            self.assertEqual(self.manage(method, path).status, 405)

    def test_stopped_while_answering(self) -> None:
        """A server that stops lets workflows come to their end."""
        self.manage("POST", "/workflows?url=w")
        self.server.provider.answer_delay = 1
        waiting = self.server.send("POST", "/wfpredict/w", self.server.key(TokenKind.INFERENCE), body=b"in")
        self.server.server.stopService()
        for _ in range(3):
            self.server.advance(1)
            self.server.flush()
        self.assertEqual(self.server.answered(waiting).body, b"in before model after")


class SwitchedOffTests(WorkflowTestCase):
    """Tests for workflows where the model API is switched off, as it is unless somebody says so."""

    options = {"enable_model_api": False}

    def test_refused(self) -> None:
        """Nothing comes and nothing goes, whatever the request says; the rest works."""
        refused = {
            "code": 405,
            "type": "MethodNotAllowedException",
            "message": "Requested method is not allowed, please refer to API document.",
        }
        for method, path in (("POST", "/workflows?url=w"), ("POST", "/workflows"), ("DELETE", "/workflows/w")):
            answer = self.manage(method, path)
            self.assertEqual((answer.status, answer.json), (405, refused))
        self.assertEqual(self.manage("GET", "/workflows").json, {"workflows": []})
        self.assertNothing()
