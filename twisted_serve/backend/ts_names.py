# SPDX-License-Identifier: Apache-2.0
"""
This module implements TorchServe's module names: ``import ts.…`` in a handler finds our modules.

Nothing called ``ts`` is installed; the finder is put in place in worker
processes alone, in front, so that an installed TorchServe is not found instead.
A handler author can do the same in a test with :func:`install`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

#: TorchServe's module: what it offers, as ``our module:name``.
NAMES: Mapping[str, Sequence[str]] = {
    "ts": ("twisted_serve:COMPATIBLE_WITH as __version__",),
    "ts.version": ("twisted_serve:COMPATIBLE_WITH as __version__",),
    "ts.context": (
        "twisted_serve.handlers.context:Context",
        "twisted_serve.handlers.context:RequestProcessor",
    ),
    "ts.async_service": ("twisted_serve.handlers.async_service:AsyncService",),
    "ts.service": ("twisted_serve.handlers.exceptions:PredictionException",),
    "ts.torch_handler": (),
    "ts.torch_handler.base_handler": (
        "twisted_serve.handlers.base:BaseHandler",
        "twisted_serve.handlers.base:setup_ort_session",
    ),
    "ts.torch_handler.vision_handler": ("twisted_serve.handlers.vision:VisionHandler",),
    "ts.torch_handler.image_classifier": ("twisted_serve.handlers.image_classifier:ImageClassifier",),
    "ts.torch_handler.image_segmenter": ("twisted_serve.handlers.image_segmenter:ImageSegmenter",),
    "ts.torch_handler.object_detector": ("twisted_serve.handlers.object_detector:ObjectDetector",),
    "ts.torch_handler.unit_tests": (),
    "ts.torch_handler.unit_tests.test_utils": (),
    "ts.torch_handler.unit_tests.test_utils.mock_context": ("twisted_serve.handlers.mock_context:MockContext",),
    "ts.utils": (),
    "ts.utils.util": (
        "twisted_serve.handlers.exceptions:PredictionException",
        "twisted_serve.handlers.model_files:get_yaml_config",
        "twisted_serve.handlers.model_files:list_classes_from_module",
        "twisted_serve.handlers.model_files:load_label_mapping",
        "twisted_serve.handlers.model_files:map_class_to_label",
    ),
    "ts.handler_utils": (),
    "ts.handler_utils.timer": ("twisted_serve.handlers.timer:timed",),
    "ts.handler_utils.utils": ("twisted_serve.handlers.streaming:send_intermediate_predict_response",),
    "ts.protocol": (),
    "ts.protocol.otf_message_handler": ("twisted_serve.handlers.streaming:send_intermediate_predict_response",),
    "ts.metrics": (),
    "ts.metrics.dimension": ("twisted_serve.handlers.metrics:Dimension",),
    "ts.metrics.metric_type_enum": ("twisted_serve.handlers.metrics:MetricTypes",),
}

#: Handlers that an archive names without bringing them, by the module that has them.
BUILT_IN_HANDLERS: Mapping[str, str] = {
    "base_handler": "twisted_serve.handlers.base",
    "image_classifier": "twisted_serve.handlers.image_classifier",
    "image_segmenter": "twisted_serve.handlers.image_segmenter",
    "object_detector": "twisted_serve.handlers.object_detector",
}


class TsFinder:
    """
    Finds ``ts`` and the modules below it, in :data:`NAMES` and nowhere else.

    It is finder and loader without their abstract classes: these would cost every worker 20 ms to import.
    """

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """
        Find one of TorchServe's modules.

        :raise ModuleNotFoundError: for one that we do not have.
        """
        if fullname != "ts" and not fullname.startswith("ts."):
            return None
        if fullname not in NAMES:
            raise ModuleNotFoundError(f"{fullname} is not provided by twisted_serve", name=fullname)
        return ModuleSpec(fullname, cast("Loader", self), origin="twisted_serve", is_package=_is_package(fullname))

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system to make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with names that are resolved when they are used: importing one must not import all."""
        targets = dict(_target(entry) for entry in NAMES[module.__name__])

        def resolve(name: str) -> Any:
            if name not in targets:
                raise AttributeError(f"{module.__name__}.{name} is not provided by twisted_serve")
            place, attribute = targets[name]
            found = module.__dict__[name] = getattr(import_module(place), attribute)
            return found

        module.__dict__.update(__getattr__=resolve, __all__=list(targets), __dir__=lambda: sorted(targets))


def install() -> TsFinder:
    """Make TorchServe's names importable in this process, once."""
    for finder in sys.meta_path:
        if isinstance(finder, TsFinder):
            return finder
    finder = TsFinder()
    sys.meta_path.insert(0, finder)
    return finder


def _is_package(fullname: str) -> bool:
    return any(each.startswith(f"{fullname}.") for each in NAMES)


def _target(entry: str) -> tuple[str, tuple[str, str]]:
    place, _, name = entry.partition(":")
    attribute, _, alias = name.partition(" as ")
    return alias or attribute, (place, attribute)
