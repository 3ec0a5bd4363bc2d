# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.model_files`."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.model_files import (
    get_yaml_config,
    list_classes_from_module,
    load_label_mapping,
    map_class_to_label,
)


class ModelFilesTests(SynchronousTestCase):
    """Tests for reading an archive's files."""

    def _file(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def test_labels(self) -> None:
        """Labels are strings, or lists whose last member is the label."""
        found = load_label_mapping(self._file('{"0": "cat", "1": ["n01", "dog"]}'))
        self.assertEqual(found, {"0": "cat", "1": "dog"})

    def test_numbered_labels(self) -> None:
        """A list of names is numbered."""
        self.assertEqual(load_label_mapping(self._file('{"object_type_names": ["a", "b"]}')), {"0": "a", "1": "b"})

    def test_no_labels(self) -> None:
        """No file, no labels; that is said once and is no error."""
        with self.assertLogs("twisted_serve.handlers.model_files", "WARNING"):
            self.assertIsNone(load_label_mapping(self.mktemp()))

    def test_wrong_labels(self) -> None:
        """A file that maps nothing to strings is refused, naming what is wrong."""
        contents: list[Any] = [[], "cat", {"0": 1}, {"0": []}, {"0": [1]}, {"0": None}]
        for content in contents:
            self.assertRaises(ValueError, load_label_mapping, self._file(json.dumps(content)))
        self.assertRaises(ValueError, load_label_mapping, self._file("{"))

    def test_classes(self) -> None:
        """Classes that a module defines are listed by name; imported ones, and others than asked for, are not."""
        module = ModuleType("somewhere")
        exec("from json import JSONDecoder\nclass B: pass\nclass A(B): pass\n", module.__dict__)
        self.assertEqual([each.__name__ for each in list_classes_from_module(module)], ["A", "B"])
        self.assertEqual([each.__name__ for each in list_classes_from_module(module, module.__dict__["A"])], ["A"])

    def test_yaml(self) -> None:
        """Settings are data; a tag that would construct an object is refused."""
        self.assertEqual(get_yaml_config(self._file("a: [1, x]")), {"a": [1, "x"]})
        attack = self._file("!!python/object/apply:os.system ['true']")
        self.assertRaises(yaml.YAMLError, get_yaml_config, attack)

    def test_map(self) -> None:
        """Probabilities are named by labels, else by numbers."""
        self.assertEqual(map_class_to_label([[0.25, 0.75]]), [{"0": 0.25, "1": 0.75}])
        self.assertEqual(map_class_to_label([[0.25, 0.75]], {"0": "a", "1": "b"}), [{"a": 0.25, "b": 0.75}])
        self.assertEqual(map_class_to_label([[0.9], [0.8]], None, [[7], ["x"]]), [{"7": 0.9}, {"x": 0.8}])

    def test_map_mismatch(self) -> None:
        """A class without a label, or classes that do not fit, are errors."""
        self.assertRaises(KeyError, map_class_to_label, [[0.1, 0.9]], {"0": "a"})
        self.assertRaises(ValueError, map_class_to_label, [[0.1, 0.9]], None, [[1]])
        self.assertRaises(ValueError, map_class_to_label, [[0.1]], None, [])

    @given(st.lists(st.lists(st.floats(0, 1)), max_size=4))
    def test_map_keeps(self, rows: list[list[Any]]) -> None:
        """Naming neither loses nor reorders anything."""
        self.assertEqual([list(each.values()) for each in map_class_to_label(rows)], rows)
