# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.archives.safe_paths`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.archives.safe_paths import confined, confined_handler, has_parent_component, inside
from twisted_serve.errors import InvalidModel
from twisted_serve.testing.strategies.archives import safe_names


class ClimbsTests(SynchronousTestCase):
    """Tests for `has_parent_component`."""

    def test_climbing(self) -> None:
        """``..`` is seen in every disguise."""
        for text in (
            "..",
            "../x",
            "a/..",
            "a/../b",
            "..\\x",
            "%2e%2e/x",
            "%2E./x",
            "..%2Fx",
            "..%5cx",
            "%252e%252e%252fx",
            "%25252e%25252e/x",
            "file:///store/../../etc/x",
            "http://h/a?b=../c",
            "http://h/a#..",
            "%" + "25" * 9 + "2e",
        ):
            with self.subTest(text):
                self.assertTrue(has_parent_component(text))

    def test_not_climbing(self) -> None:
        """Dots alone are no reason to refuse a name, unlike in TorchServe."""
        for text in ("a..b.mar", "...", "..a", "a../b", ".", "./a", "%2e", "model.1..2.tar.gz", "100%.mar", "%zz", ""):
            with self.subTest(text):
                self.assertFalse(has_parent_component(text))

    @given(
        st.lists(st.sampled_from(["a", ".", "...", "b.mar"])), st.lists(st.sampled_from(["a", "c"])), st.integers(0, 3)
    )
    def test_any_depth_of_encoding(self, before: list[str], after: list[str], depth: int) -> None:
        """A ``..`` component is found however often the path is percent-encoded."""
        text = "/".join([*before, "..", *after])
        for _ in range(depth):
            text = quote(text, safe="").replace(".", "%2e")
        self.assertTrue(has_parent_component(text))

    @given(safe_names())
    def test_honest_names(self, name: str) -> None:
        """The name of a file that could be in an archive does not climb, unless it decodes to one that does."""
        self.assertFalse(has_parent_component(name.replace("%", "_")))


class ConfinedTests(SynchronousTestCase):
    """Files of a model directory."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.model = self.root / "model"
        (self.model / "sub").mkdir(parents=True)
        (self.root / "model-sibling").mkdir()

    def test_inside(self) -> None:
        """A file of the directory is found, and so is one that does not exist yet."""
        self.assertEqual(confined(self.model, "configFile", "sub/x.yaml"), self.model / "sub/x.yaml")
        (self.model / "link").symlink_to(self.model / "sub")
        self.assertEqual(confined(self.model, "configFile", "link/x.yaml"), self.model / "link/x.yaml")

    def test_outside(self) -> None:
        """A path out of the directory is refused: absolute, climbing, by a link, to a sibling, or unspeakable."""
        (self.model / "out").symlink_to(self.root)
        (self.model / "dangling").symlink_to(self.root / "nothing")
        for value in (
            "/etc/passwd",
            "../x",
            "sub/../../x",
            "../model-sibling/x",
            "out/x",
            "out",
            "dangling",
            ".",
            "",
            "sub/..",
            "a\0b",
            "\ud800",
            str(self.root / "model-sibling"),
        ):
            with self.subTest(value):
                error = self.assertRaises(InvalidModel, confined, self.model, "configFile", value)
                self.assertEqual(
                    error.message, f"Manifest entry configFile is {value!r}, which is not inside the model directory."
                )

    def test_no_name_of_a_file(self) -> None:
        """A name that the operating system does not look for is refused, whatever part of it is too long."""
        (self.model / "a").symlink_to("a")
        for value, why in (
            ("h" * 256, "File name too long"),
            (f"{'d' * 256}/x", "File name too long"),
            ("d/" * 2048 + "x", "File name too long"),
            ("é" * 128, "File name too long"),
            ("a/x", "Too many levels of symbolic links"),
        ):
            with self.subTest(value):
                error = self.assertRaises(InvalidModel, confined, self.model, "modelFile", value)
                self.assertEqual(
                    error.message,
                    f"Manifest entry modelFile is {value!r:.200}, which cannot be the name of a file: {why}.",
                )
        self.assertEqual(confined(self.model, "modelFile", "h" * 255), self.model / ("h" * 255))

    def test_handlers(self) -> None:
        """A handler is a file with or without its suffix, and a function after a colon is no part of its name."""
        for handler in ("h.py", "h", "sub/h.py:f", "image_classifier", "h" * 252, "h" * 252 + ".py:" + "f" * 300):
            confined_handler(self.model, handler)
        for handler in ("h" * 253, "h" * 253 + ".py", "h" * 253 + ":f", "/etc/h.py", "../h", "../h:f", ":f"):
            with self.subTest(handler):
                error = self.assertRaises(InvalidModel, confined_handler, self.model, handler, False, "Parameter")
                self.assertIn("Parameter handler is", error.message)

    def test_root_is_a_link(self) -> None:
        """The directory itself may be reached by a link."""
        link = self.root / "alias"
        link.symlink_to(self.model)
        self.assertTrue(inside(link, link / "sub"))
        self.assertTrue(inside(link, self.model / "sub"))
        self.assertFalse(inside(link, self.model))

    def test_loop(self) -> None:
        """Links in a circle are not followed for ever."""
        (self.model / "a").symlink_to(self.model / "b")
        (self.model / "b").symlink_to(self.model / "a")
        self.assertEqual(confined(self.model, "modelFile", "a"), self.model / "a")
