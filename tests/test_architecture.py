# SPDX-License-Identifier: Apache-2.0
"""Compare docs/architecture.md with the code: what is made from it, what it names, and the order of calls it tells."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import unwrap
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve
from docs.generators.house import PICTURE as HOUSE
from docs.generators.house import ROOT, boxes, house_svg, layers
from docs.generators.worker_states import ORDER, PAGE, PICTURE, inputs, picture, transitions, with_tables
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.rpc.messages import PredictionsRequest
from twisted_serve.rpc.methods import INFERENCE
from twisted_serve.testing.server import MemoryServer

PACKAGE = Path(twisted_serve.__file__).parent


def page() -> str:
    """Return the page."""
    return PAGE.read_text(encoding="utf-8")


def steps(heading: str) -> list[str]:
    """Return the names of the functions in the steps below a heading."""
    _, found, rest = page().partition(f"### {heading}\n")
    if not found:
        raise AssertionError(f"there is no heading {heading!r}")
    return re.findall(r"^\d+\. `([\w.]+)`: ", re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)


def resolve(name: str) -> Any:
    """Return the module, or the attribute of a module, with a name below the package."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        path = PACKAGE.joinpath(*words[:length])
        if path.is_dir() or path.with_suffix(".py").is_file():
            value: Any = import_module(".".join(["twisted_serve", *words[:length]]))
            for word in words[length:]:
                value = getattr(value, word)
            return value
    raise AttributeError(name)


def is_there(name: str) -> bool:
    """Return whether there is a module or an attribute with a name below the package."""
    try:
        resolve(name)
    except AttributeError:
        return False
    return True


def code_of(name: str) -> CodeType:
    """Return the code of the function with a name below the package."""
    code: CodeType = unwrap(resolve(name)).__code__
    return code


def called(action: Callable[[], object]) -> list[CodeType]:
    """Return the code of all functions that are called while ``action`` runs, in their order."""
    codes: list[CodeType] = []

    def record(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            codes.append(frame.f_code)

    other = sys.getprofile()
    sys.setprofile(record)
    try:
        action()
    finally:
        sys.setprofile(other)
    return codes


def first_missing(names: Sequence[str], calls: Sequence[CodeType]) -> str | None:
    """Return the first of these functions that was not called after those before it, if there is one."""
    coming = iter(calls)
    for name in names:
        code = code_of(name)
        if not any(each is code for each in coming):
            return name
    return None


class NameTests(SynchronousTestCase):
    """Each module and attribute that the page names is there."""

    def test_names(self) -> None:
        """Names in the text and in the steps."""
        tops = {path.stem for path in PACKAGE.iterdir()}
        names = [name for name in re.findall(r"`([a-z_]+\.[\w.]+)`", page()) if name.split(".")[0] in tops]
        self.assertGreater(len(names), 90)
        missing = [name for name in names if not is_there(name)]
        self.assertEqual(missing, [])

    def test_missing_name(self) -> None:
        """A name that is not there is noticed."""
        for name in ("nowhere.Thing", "auth.gate.Door", "auth.gate.Authorizer.open"):
            self.assertRaises(AttributeError, resolve, name)

    def test_numbers(self) -> None:
        """The steps of each way are numbered from 1, without a gap."""
        for part in re.split(r"^## ", page(), flags=re.MULTILINE)[1:]:
            numbers = [int(number) for number in re.findall(r"^(\d+)\. ", part, re.MULTILINE)]
            self.assertEqual(numbers, [*range(1, len(numbers) + 1)])


class WayTests(SynchronousTestCase):
    """The functions are called in the order of the page."""

    def send(self, key: str, server: MemoryServer) -> tuple[list[CodeType], bytes]:
        """Send a prediction on a warm connection; return what is called, and the response."""
        connection = server.connect()
        right = server.key(TokenKind.INFERENCE)
        head = "POST /predictions/m HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nContent-Length: 1\r\n\r\nx"
        connection.send(head.format(right).encode())
        before = len(connection.received)
        calls = called(lambda: connection.send(head.format(key).encode()))
        return calls, connection.received[before:]

    def server(self, fast_lane: bool = False) -> MemoryServer:
        """Return a server with a model."""
        server = MemoryServer({"fast_lane": fast_lane}, models={"m": {}})
        self.addCleanup(server.close)
        return server

    def test_prediction(self) -> None:
        """A prediction, but for the worker's process, in whose place a fake answers."""
        server = self.server()
        calls, response = self.send(server.key(TokenKind.INFERENCE), server)
        self.assertTrue(response.startswith(b"HTTP/1.1 200 "), response)
        names = [*steps("To the scheduler"), *steps("Back to the client")]
        self.assertGreater(len(names), 35)
        self.assertIsNone(first_missing(names, calls))

    def test_fast_lane(self) -> None:
        """The same on the fast lane, where no request of Twisted's is made."""
        server = self.server(fast_lane=True)
        calls, response = self.send(server.key(TokenKind.INFERENCE), server)
        self.assertTrue(response.startswith(b"HTTP/1.1 200 "), response)
        names = [*steps("From the bytes to the queue"), *steps("From the queue to the socket")]
        self.assertEqual(len(names), 12)
        self.assertIsNone(first_missing(names, calls))
        self.assertNotIn(code_of("web.http.request.ServeRequest.__init__"), calls)

    def test_call(self) -> None:
        """A call of gRPC."""
        server = self.server()
        client, key = server.grpc(), server.key(TokenKind.INFERENCE)
        message = PredictionsRequest(model_name="m", input={"data": b"x"})
        calls = called(lambda: client.call(f"/{INFERENCE}/Predictions", message, key))
        names = [*steps("From frames to the use case"), *steps("From the response to frames")]
        self.assertEqual(len(names), 19)
        self.assertIsNone(first_missing(names, calls))

    def test_other_order(self) -> None:
        """Two steps in the wrong order are noticed, and so is one that is not taken."""
        server = self.server()
        calls, _ = self.send(server.key(TokenKind.INFERENCE), server)
        one, *others, last = steps("To the scheduler")
        self.assertEqual(first_missing([last, *others, one], calls), others[0])
        self.assertEqual(first_missing(["auth.audit.AuditLog.refused"], calls), "auth.audit.AuditLog.refused")

    def test_start(self) -> None:
        """The start of a server, from the service on."""
        calls = called(self.server)
        self.assertIsNone(first_missing(steps("To the key file"), calls))

    def test_refusal(self) -> None:
        """A refusal; nothing reads the body."""
        calls, response = self.send("guessed-by-a-client", self.server())
        self.assertTrue(response.startswith(b"HTTP/1.1 400 "), response)
        self.assertIsNone(first_missing(steps("To a refusal"), calls))
        self.assertNotIn(code_of("web.http.request.ServeRequest.handleContentChunk"), calls)

    def test_other_steps(self) -> None:
        """The steps that cannot be followed in memory name functions."""
        for name in [*steps("Through the worker"), *steps("From the command line")]:
            code_of(name)


class DesignTests(SynchronousTestCase):
    """CONTRIBUTING and the pages in docs/designs name modules and tests that are there."""

    def test_names(self) -> None:
        """Paths of modules, paths of tests, and names of tests."""
        missing: list[str] = []
        paths = tests = 0
        for design in [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "designs").glob("*.md"))]:
            text = design.read_text(encoding="utf-8")
            words = re.findall(r"`([\w./]+)`", text)
            files = [word for word in words if word.endswith(".py") and "/" in word]
            there = [path for word in files for path in (ROOT / word, PACKAGE / word) if path.is_file()]
            paths += len(there)
            missing += [
                f"{design.name}: {word}"
                for word in files
                if not (ROOT / word).is_file() and not (PACKAGE / word).is_file()
            ]
            source = "\n".join(path.read_text(encoding="utf-8") for path in there)
            named = [name for name in words if re.fullmatch(r"test_\w+", name)]
            tests += len(named)
            missing += [f"{design.name}: {name}" for name in named if f"def {name}(" not in source]
        self.assertEqual(missing, [])
        self.assertGreater(paths, 40)
        self.assertGreater(tests, 20)


class HouseTests(SynchronousTestCase):
    """The picture of the packages is made from the contract and the docstrings."""

    def test_committed_picture(self) -> None:
        """The picture in docs is of this code; if not: python -m docs.generators.house > docs/house.svg"""
        self.assertEqual(HOUSE.read_text(encoding="utf-8"), house_svg())

    def test_complete(self) -> None:
        """Each package and module at the top has a box, and each package in it is named."""
        contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        drawn = {box.name: box for row in boxes(contracts) for box in row}
        self.assertEqual(sum(map(len, layers(contracts))), len(drawn))
        there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
        self.assertEqual({*drawn}, there - {"__init__"})
        self.assertIn("http", drawn["web"].parts)
        self.assertEqual({name for name, box in drawn.items() if box.worker}, {"backend", "handlers"})

    def test_no_contract(self) -> None:
        """A contract that is called something else is noticed."""
        self.assertRaises(ValueError, layers, "[tool.importlinter]\n")


class WorkerStatesTests(SynchronousTestCase):
    """The states of a worker are made from its machine."""

    def test_committed(self) -> None:
        """Page and picture are of this machine; if not: python -m docs.generators.worker_states"""
        self.assertEqual(page(), with_tables(page()))
        self.assertEqual(PICTURE.read_text(encoding="utf-8"), picture())

    def test_complete(self) -> None:
        """Each transition has its cell, and each that leads elsewhere its arrow."""
        found = transitions()
        rows = [line for line in page().splitlines() if line.startswith("| **")]
        self.assertEqual(len(rows), len(ORDER))
        self.assertEqual(sum(cell.strip() != "" for row in rows for cell in row.split("|")[2:-1]), len(found))
        others = {(was, becomes) for (was, _), becomes in found.items() if was != becomes}
        self.assertEqual(picture().count('class="arrow"'), len(others))
        self.assertEqual({name for _, name in found}, {*inputs()})

    def test_no_place(self) -> None:
        """A page that lost its block is noticed."""
        self.assertRaises(ValueError, with_tables, "# Architecture\n")
