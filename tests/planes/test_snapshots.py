# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.planes.snapshots`: when snapshots are taken, and what comes of them, in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.properties import parse_properties
from twisted_serve.config.snapshots import snapshot_moment
from twisted_serve.models.snapshot import InvalidSnapshot, Snapshot
from twisted_serve.planes.snapshots import SnapshotFolder
from twisted_serve.testing.server import Answer, MemoryServer

# What clients do to models; some of it is refused at some times.
CHANGES = (
    "POST /models?url=a2.0",
    "POST /models?url=a3.0&initial_workers=2&batch_size=8&synchronous=true",
    "POST /models?url=b&initial_workers=0&response_timeout=7&max_batch_delay=0",
    "PUT /models/a?min_worker=2&max_worker=4&synchronous=true",
    "PUT /models/a/2.0?min_worker=0&max_worker=0&synchronous=true",
    "PUT /models/a/2.0/set-default",
    "PUT /models/a/3.0/set-default",
    "PUT /models/a/1.0/set-default",
    "DELETE /models/a/1.0",
    "DELETE /models/a/2.0",
    "DELETE /models/a",
    "DELETE /models/b",
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def manifest(name: str, version: str) -> Mapping[str, str]:
    """Make the files of a model of which there are several versions."""
    model = {"modelName": name, "modelVersion": version, "handler": "handler.py"}
    return {"MAR-INF/MANIFEST.json": json.dumps({"model": model})}


class FolderTests(SynchronousTestCase):
    """The files."""

    def setUp(self) -> None:
        self.path = Path(tempfile.mkdtemp()) / "logs" / "config"
        self.addCleanup(shutil.rmtree, self.path.parent.parent)
        self.folder = SnapshotFolder(self.path, {"job_queue_size": "7", "name": "a=b:c \\ é"}, kept=3)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def test_content(self) -> None:
        """A snapshot is a properties file with the settings and the models, for its owner alone."""
        file = self.folder.write(Snapshot(), NOW, "startup")
        self.assertEqual(file, self.path / "20260102030405000-startup.cfg")
        data = file.read_bytes()
        self.assertTrue(data.startswith(b"#Saving snapshot\n#Fri Jan 02 03:04:05 UTC 2026\n"))
        self.assertEqual(sum(line.startswith(b"model_snapshot=") for line in data.split(b"\n")), 1)
        values = parse_properties(data)
        models = json.loads(values.pop("model_snapshot"))
        self.assertEqual(values, self.folder.settings)
        self.assertEqual(models, {"name": file.name, "modelCount": 0, "created": 1767323045000, "models": {}})
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o700)

    def test_retention(self) -> None:
        """The newest ones stay; files that are no snapshots are nobody's business."""
        self.path.mkdir(parents=True)
        (self.path / "0-notes").touch()
        for second in range(5):
            self.folder.write(Snapshot(), NOW + timedelta(seconds=second), "snapshot")
        stays = [f"2026010203040{second}000-snapshot.cfg" for second in (7, 8, 9)]
        self.assertEqual(self.names(), ["0-notes", *stays])

    def test_clock(self) -> None:
        """The last one is the newest by name, when time stands still and when it is set back an hour."""
        moments = [
            snapshot_moment(self.folder.write(Snapshot(), now, "snapshot").name)
            for now in (NOW, NOW, NOW - timedelta(hours=1))
        ]
        first = NOW.replace(tzinfo=None)
        self.assertEqual(moments, [first + timedelta(milliseconds=more) for more in range(3)])

    def test_unwritable(self) -> None:
        """What cannot be written whole is not there at all."""
        self.path.parent.mkdir(parents=True)
        self.path.touch()
        self.assertRaises(OSError, self.folder.write, Snapshot(), NOW, "startup")


class TakingTests(SynchronousTestCase):
    """A server that takes snapshots, and what it makes of them."""

    def serve(self, options: Mapping[str, Any] | None = None, **arguments: Any) -> MemoryServer:
        server = MemoryServer(options, **{"snapshots": True, **arguments})
        self.addCleanup(server.close)
        return server

    def files(self, server: MemoryServer) -> list[Path]:
        return sorted((server.directory / "snapshots").iterdir()) if (server.directory / "snapshots").exists() else []

    def occasions(self, server: MemoryServer) -> list[str]:
        return [file.stem.partition("-")[2] for file in self.files(server)]

    def last(self, server: MemoryServer) -> Any:
        return json.loads(parse_properties(self.files(server)[-1].read_bytes())["model_snapshot"])

    def manage(self, server: MemoryServer, method: str, path: str) -> Answer:
        return server.request(method, path, server.key(TokenKind.MANAGEMENT))

    def restart_from_last(self, server: MemoryServer) -> None:
        """Stop the server and start it with what it has written last."""
        server.server.stopService()
        server.advance(100)
        server.options = evolve(server.options, model_snapshot=self.last(server))
        server.restart()

    def describe(self, server: MemoryServer, name: str) -> Any:
        """Describe a model's versions, but for what no two runs have in common."""
        shown = self.manage(server, "GET", f"/models/{name}/all").json
        for version in shown:
            version["workers"] = len(version["workers"])
            del version["loadedAtStartup"]
        return shown

    def everything(self, server: MemoryServer) -> dict[str, Any]:
        """Describe all models: their versions, and the default ones."""
        listed = [model["modelName"] for model in self.manage(server, "GET", "/models").json["models"]]
        return {
            name: (self.describe(server, name), self.manage(server, "GET", f"/models/{name}").json[0]["modelVersion"])
            for name in listed
        }

    def test_off(self) -> None:
        """A server in memory writes none unless it is asked to."""
        server = self.serve(snapshots=False, models={"m": {}})
        self.manage(server, "PUT", "/models/m?min_worker=2&synchronous=true")
        self.assertEqual(self.files(server), [])

    def test_occasions(self) -> None:
        """There is one when the start-up models are there, after each change, and at the end; none for the rest."""
        server = self.serve(models={"m": {}})
        self.assertEqual(self.occasions(server), ["startup"])
        server.add_model("n", {})
        server.add_model("m2", manifest("m", "2.0"))
        for change in (
            "POST /models?url=n&initial_workers=1&synchronous=true",
            "POST /models?url=m2",
            "PUT /models/m/2.0/set-default",
            "PUT /models/n?min_worker=2&synchronous=true",
            "PUT /models/n?min_worker=1",
            "DELETE /models/n",
        ):
            before = len(self.files(server))
            self.assertLess(self.manage(server, *change.split(" ")).status, 300, change)
            self.assertEqual(len(self.files(server)) - before, 1, change)
            self.assertEqual(self.last(server)["name"], self.files(server)[-1].name)
        before = len(self.files(server))
        for other in (
            "GET /models",
            "GET /models/m",
            "POST /models?url=nothing",
            "POST /models?url=m2",
            "PUT /models/x?min_worker=1",
            "DELETE /models/x",
        ):
            self.manage(server, *other.split(" "))
        self.assertEqual(len(self.files(server)), before)
        server.server.stopService()
        self.assertEqual(set(self.occasions(server)), {"startup", "snapshot", "shutdown"})
        self.assertEqual(self.occasions(server)[-1], "shutdown")

    def test_content(self) -> None:
        """A snapshot has the numbers of the moment, and the default version."""
        server = self.serve(models={"m": {}})
        server.add_model("m2", manifest("m", "2.0"))
        self.manage(server, "POST", "/models?url=m2&batch_size=4&initial_workers=0")
        self.manage(server, "PUT", "/models/m/2.0/set-default")
        self.manage(server, "PUT", "/models/m/1.0?min_worker=2&max_worker=3&synchronous=true")
        shown = self.last(server)
        self.assertEqual(shown["modelCount"], 2)
        one, two = shown["models"]["m"]["1.0"], shown["models"]["m"]["2.0"]
        self.assertEqual((one["minWorkers"], one["maxWorkers"], one["defaultVersion"]), (2, 3, False))
        self.assertEqual((two["minWorkers"], two["batchSize"], two["defaultVersion"]), (0, 4, True))
        self.assertEqual(two["marName"], "m2")

    def test_not_before_the_workers(self) -> None:
        """A registration is recorded when its workers have loaded, and not at all if they cannot."""
        server = self.serve()
        server.add_model("m", {})
        before = len(self.files(server))
        server.provider.load_delay = None
        coming = server.send("POST", "/models?url=m&initial_workers=1", server.key(TokenKind.MANAGEMENT))
        self.assertEqual(len(self.files(server)), before)
        server.provider.workers[-1].kill()
        server.advance(1)
        self.assertGreaterEqual(server.answered(coming).status, 500)
        self.assertEqual(len(self.files(server)), before)

    def test_undone(self) -> None:
        """A model that could not be had after all is in no last snapshot, whatever was recorded meanwhile."""
        server = self.serve(models={"o": {}})
        server.add_model("m", {})
        server.provider.load_delay = None
        coming = server.send("POST", "/models?url=m&initial_workers=1", server.key(TokenKind.MANAGEMENT))
        loading = server.provider.workers[-1]
        self.manage(server, "PUT", "/models/o?min_worker=0&max_worker=1&synchronous=true")
        self.assertEqual(list(self.last(server)["models"]), ["o", "m"])
        loading.kill()
        server.advance(1)
        self.assertGreaterEqual(server.answered(coming).status, 500)
        self.assertEqual(list(self.last(server)["models"]), ["o"])

    def test_nothing_new(self) -> None:
        """A change that changes nothing leaves no snapshot."""
        server = self.serve(models={"m": {}})
        self.manage(server, "PUT", "/models/m?min_worker=1&synchronous=true")
        self.manage(server, "PUT", "/models/m/1.0/set-default")
        self.assertEqual(self.occasions(server), ["startup"])

    def test_restored(self) -> None:
        """A server that starts with its last snapshot has the same models as before, all of them start-up models."""
        server = self.serve(models={"m": {}, "o": {}})
        server.add_model("m2", manifest("m", "2.0"))
        self.manage(server, "POST", "/models?url=m2&batch_size=4&max_batch_delay=7&response_timeout=9&handler=x:y")
        self.manage(server, "PUT", "/models/m/2.0/set-default")
        self.manage(server, "PUT", "/models/m/2.0?min_worker=2&max_worker=3&synchronous=true")
        self.manage(server, "DELETE", "/models/o")
        before, listed = self.describe(server, "m"), self.manage(server, "GET", "/models").json
        self.restart_from_last(server)
        self.assertEqual(self.describe(server, "m"), before)
        self.assertEqual(self.manage(server, "GET", "/models").json, listed)
        self.assertTrue(self.manage(server, "GET", "/models/m").json[0]["loadedAtStartup"])
        self.assertEqual(server.request("GET", "/readyz").status, 200)

    @given(changes=st.lists(st.sampled_from(CHANGES), max_size=6))
    @settings(max_examples=settings().max_examples // 4)
    def test_always_the_same(self, changes: list[str]) -> None:
        """Whatever clients have done, a server that starts with the last snapshot shows what the one before showed."""
        with MemoryServer(models={"a": {}}, snapshots=True) as server:
            for number in ("2.0", "3.0"):
                server.add_model(f"a{number}", manifest("a", number))
            server.add_model("b", {})
            for change in changes:
                self.manage(server, *change.split(" "))
            before = self.everything(server)
            self.restart_from_last(server)
            self.assertEqual(self.everything(server), before)

    def test_only_model(self) -> None:
        """The only model that was restored is the one which ``/invocations`` means."""
        server = self.serve(models={"m": {}})
        self.restart_from_last(server)
        answer = server.request("POST", "/invocations", server.key(TokenKind.INFERENCE), body=b"x")
        self.assertEqual((answer.status, answer.body), (200, b"x"))

    def test_missing_archive(self) -> None:
        """If an archive has gone, the server does not start, says which, and leaves nothing behind."""
        server = self.serve(models={"m": {}})
        shutil.rmtree(server.directory / "models" / "m")
        server.server.stopService()
        server.advance(100)
        server.options = evolve(server.options, model_snapshot=self.last(server))
        error = self.assertRaises(InvalidSnapshot, server.restart)
        self.assertEqual(
            str(error),
            "Model archive file for model :m, version :1.0 not found in model store (m: Model not found at: m)",
        )
        self.assertEqual(sorted(path.name for path in server.directory.iterdir()), ["models", "snapshots"])

    def test_other_version(self) -> None:
        """An archive that has become another version is served as that, with a warning."""
        server = self.serve(models={"m": {}, "o": {}})
        server.add_model("m", manifest("m", "9.0"))
        with capturedLogs() as events:
            self.restart_from_last(server)
        self.assertEqual([m["modelName"] for m in self.manage(server, "GET", "/models").json["models"]], ["m", "o"])
        self.assertEqual([m["modelVersion"] for m in self.manage(server, "GET", "/models/m/all").json], ["9.0"])
        self.assertIn(
            "The archive of model m has version 9.0, and is served so; the snapshot says 1.0",
            [formatEvent(event) for event in events],
        )
        self.assertEqual(server.request("GET", "/readyz").status, 200)
        self.assertEqual(list(self.last(server)["models"]["m"]), ["9.0"])

    def test_other_default_version(self) -> None:
        """The default version of several is that of the recorded one's archive, by whatever number it goes."""
        server = self.serve(models={"m": {}})
        server.add_model("m2", manifest("m", "2.0"))
        self.manage(server, "POST", "/models?url=m2&initial_workers=0")
        self.manage(server, "PUT", "/models/m/2.0/set-default")
        server.add_model("m2", manifest("m", "0.1"))
        self.restart_from_last(server)
        self.assertEqual(self.manage(server, "GET", "/models/m").json[0]["modelVersion"], "0.1")

    def test_written_by_hand(self) -> None:
        """A snapshot for an image whose archive has another version than was written down: ``0.1`` against 1.0."""
        server = self.serve(models={"m": {}})
        server.server.stopService()
        server.advance(100)
        versions = {"0.1": {"defaultVersion": True, "marName": "m", "minWorkers": 2, "maxWorkers": 2}}
        server.options = evolve(server.options, model_snapshot={"modelCount": 1, "models": {"m": versions}})
        server.restart()
        shown = self.manage(server, "GET", "/models/m").json[0]
        self.assertEqual((shown["modelVersion"], shown["minWorkers"]), ("1.0", 2))

    def test_outside_the_store(self) -> None:
        """A directory that the operator has named outside of the store is there again, under the URL that it had."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        (directory / "MAR-INF").mkdir()
        (directory / "MAR-INF/MANIFEST.json").write_text(manifest("out", "1.0")["MAR-INF/MANIFEST.json"])
        url = os.path.relpath(directory)
        server = self.serve({"load_models": url})
        before = self.everything(server)
        self.assertEqual(self.last(server)["models"]["out"]["1.0"]["marName"], str(Path.cwd() / url))
        self.restart_from_last(server)
        self.assertEqual(self.everything(server), before)
        self.assertEqual(self.manage(server, "GET", "/models/out").json[0]["modelUrl"], url)

    def test_stopped_while_loading(self) -> None:
        """A server that is stopped before its models are there does not write that there are none."""
        server = self.serve(models={"m": {}})
        files = self.files(server)
        server.server.stopService()
        server.advance(100)
        files = self.files(server)
        server.provider.load_delay = None
        server.restart()
        server.server.stopService()
        server.advance(100)
        self.assertEqual(self.files(server), files)

    def test_unwritable(self) -> None:
        """What cannot be written is logged, and serving goes on."""
        server = self.serve(models={"m": {}})
        shutil.rmtree(server.directory / "snapshots")
        (server.directory / "snapshots").touch()
        self.assertEqual(self.manage(server, "PUT", "/models/m?min_worker=2&synchronous=true").status, 200)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        (server.directory / "snapshots").unlink()
