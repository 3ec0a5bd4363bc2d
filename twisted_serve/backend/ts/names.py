# SPDX-License-Identifier: Apache-2.0
"""
Resolve imports of TorchServe's module names, ``import ts.…``, to modules of this package.

No package named ``ts`` is installed: an import hook does it, only in worker processes, and
before other finders, so that an installed TorchServe is not imported instead. Handler authors
can install the hook in their tests with :func:`install`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from opcode import opmap
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

#: TorchServe's module to its names, each as ``our module:name``.
NAMES: Mapping[str, Sequence[str]] = {
    "ts": ("twisted_serve:COMPATIBLE_WITH as __version__",),
    "ts.version": ("twisted_serve:COMPATIBLE_WITH as __version__",),
    "ts.context": (
        "twisted_serve.handlers.context:Context",
        "twisted_serve.handlers.context:RequestProcessor",
    ),
    "ts.async_service": ("twisted_serve.handlers.async_service:AsyncService",),
    "ts.service": (
        "twisted_serve.backend.ts.service:Service",
        "twisted_serve.handlers.collected_metrics:PREDICTION_METRIC",
        "twisted_serve.handlers.collected_metrics:emit_metrics",
        "twisted_serve.handlers.exceptions:PredictionException",
    ),
    "ts.torch_handler": (),
    "ts.torch_handler.base_handler": (
        "twisted_serve.handlers.base:BaseHandler",
        "twisted_serve.handlers.base:setup_ort_session",
        "twisted_serve.handlers.availability:IPEX_AVAILABLE",
        "twisted_serve.handlers.availability:ONNX_AVAILABLE",
        "twisted_serve.handlers.availability:PROFILER_AVAILABLE",
        "twisted_serve.handlers.availability:PT2_AVAILABLE",
        "twisted_serve.handlers.availability:PT230_AVAILABLE",
        "twisted_serve.handlers.availability:XLA_AVAILABLE",
    ),
    "ts.torch_handler.vision_handler": ("twisted_serve.handlers.vision:VisionHandler",),
    "ts.torch_handler.image_classifier": ("twisted_serve.handlers.image_classifier:ImageClassifier",),
    "ts.torch_handler.image_segmenter": ("twisted_serve.handlers.image_segmenter:ImageSegmenter",),
    "ts.torch_handler.object_detector": ("twisted_serve.handlers.object_detector:ObjectDetector",),
    "ts.torch_handler.text_handler": ("twisted_serve.handlers.text:TextHandler",),
    "ts.torch_handler.text_classifier": ("twisted_serve.handlers.text_classifier:TextClassifier",),
    "ts.torch_handler.contractions": ("twisted_serve.handlers.contractions:CONTRACTION_MAP",),
    "ts.torch_handler.request_envelope": (),
    "ts.torch_handler.request_envelope.base": ("twisted_serve.handlers.envelope:BaseEnvelope",),
    "ts.torch_handler.request_envelope.body": ("twisted_serve.handlers.envelope:BodyEnvelope",),
    "ts.torch_handler.request_envelope.json": ("twisted_serve.handlers.instances:JSONEnvelope",),
    "ts.torch_handler.request_envelope.kserve": ("twisted_serve.handlers.instances:KServeEnvelope",),
    "ts.torch_handler.request_envelope.kservev2": ("twisted_serve.handlers.open_inference:KServev2Envelope",),
    "ts.torch_handler.unit_tests": (),
    "ts.torch_handler.unit_tests.test_utils": (),
    "ts.torch_handler.unit_tests.test_utils.mock_context": ("twisted_serve.handlers.mock_context:MockContext",),
    "ts.utils": (),
    "ts.utils.util": (
        "twisted_serve.handlers.compiling:PT2Backend",
        "twisted_serve.handlers.compiling:check_valid_pt2_backend",
        "twisted_serve.handlers.text:CLEANUP_REGEX",
        "twisted_serve.handlers.deprecation:deprecated",
        "twisted_serve.handlers.exceptions:PredictionException",
        "twisted_serve.handlers.model_files:get_yaml_config",
        "twisted_serve.handlers.model_files:list_classes_from_module",
        "twisted_serve.handlers.model_files:load_label_mapping",
        "twisted_serve.handlers.model_files:map_class_to_label",
    ),
    "ts.handler_utils": (),
    "ts.handler_utils.hf_batch_streamer": ("twisted_serve.handlers.hf_streamer:TextIteratorStreamerBatch",),
    "ts.handler_utils.micro_batching": (
        "twisted_serve.handlers.micro_batching:HANDLER_METHODS",
        "twisted_serve.handlers.micro_batching:MicroBatching",
    ),
    "ts.handler_utils.text_utils": (
        "twisted_serve.handlers.text_utils:get_tokenizer",
        "twisted_serve.handlers.text_utils:ngrams_iterator",
    ),
    "ts.handler_utils.timer": ("twisted_serve.handlers.timer:timed",),
    "ts.handler_utils.utils": (
        "twisted_serve.backend.ts.frames:create_predict_response",
        "twisted_serve.handlers.class_imports:import_class",
        "twisted_serve.handlers.streaming:send_intermediate_predict_response",
    ),
    "ts.protocol": (),
    "ts.protocol.otf_message_handler": (
        "twisted_serve.backend.ts.frames:create_predict_response",
        "twisted_serve.handlers.streaming:send_intermediate_predict_response",
    ),
    "ts.metrics": (),
    "ts.metrics.caching_metric": ("twisted_serve.handlers.metrics:CachingMetric",),
    "ts.metrics.dimension": ("twisted_serve.handlers.metrics:Dimension",),
    "ts.metrics.metric": ("twisted_serve.handlers.collected_metrics:Metric",),
    "ts.metrics.metric_cache_errors": (
        "twisted_serve.handlers.metrics:GeneralMetricsCacheError",
        "twisted_serve.handlers.metrics:MetricsCacheIOError",
        "twisted_serve.handlers.metrics:MetricsCacheKeyError",
        "twisted_serve.handlers.metrics:MetricsCachePyYamlError",
        "twisted_serve.handlers.metrics:MetricsCacheTypeError",
        "twisted_serve.handlers.metrics:MetricsCacheValueError",
    ),
    "ts.metrics.metric_cache_yaml_impl": ("twisted_serve.handlers.metrics:MetricsCacheYamlImpl",),
    "ts.metrics.metric_type_enum": ("twisted_serve.handlers.metrics:MetricTypes",),
    "ts.metrics.metrics_store": ("twisted_serve.handlers.collected_metrics:MetricsStore",),
    "ts.metrics.process_memory_metric": ("twisted_serve.handlers.host_metrics:get_cpu_usage",),
    "ts.metrics.system_metrics": (
        "twisted_serve.handlers.host_metrics:collect_all",
        "twisted_serve.handlers.host_metrics:cpu_utilization",
        "twisted_serve.handlers.host_metrics:disk_available",
        "twisted_serve.handlers.host_metrics:disk_used",
        "twisted_serve.handlers.host_metrics:disk_utilization",
        "twisted_serve.handlers.host_metrics:memory_available",
        "twisted_serve.handlers.host_metrics:memory_used",
        "twisted_serve.handlers.host_metrics:memory_utilization",
        "twisted_serve.handlers.host_metrics:system_metrics",
    ),
    "ts.metrics.unit": ("twisted_serve.handlers.metrics:Units",),
}

#: Handlers that an archive names without bringing them, by the module that has them.
BUILT_IN_HANDLERS: Mapping[str, str] = {
    "base_handler": "twisted_serve.handlers.base",
    "image_classifier": "twisted_serve.handlers.image_classifier",
    "image_segmenter": "twisted_serve.handlers.image_segmenter",
    "text_classifier": "twisted_serve.handlers.text_classifier",
    "object_detector": "twisted_serve.handlers.object_detector",
}

#: Envelopes that ``service_envelope`` names, by what they are.
BUILT_IN_ENVELOPES: Mapping[str, str] = {
    "body": "twisted_serve.handlers.envelope:BodyEnvelope",
    "json": "twisted_serve.handlers.instances:JSONEnvelope",
    "kserve": "twisted_serve.handlers.instances:KServeEnvelope",
    "kservev2": "twisted_serve.handlers.open_inference:KServev2Envelope",
}

#: Modules (with their submodules) and names of TorchServe that we do not provide, to the reason.
MISSING: Mapping[str, str] = {
    "ts.arg_parser": "the command is twisted-serve",
    "ts.handler_utils.distributed": "PiPPy lives on as torch.distributed.pipelining; call that, or DeepSpeed, directly",
    "ts.handler_utils.micro_batching.WorkerThread": "it is how MicroBatching worked inside",
    "ts.handler_utils.micro_batching.execute_call": "it is how MicroBatching worked inside",
    "ts.handler_utils.preprocess": "it needs NVIDIA's DALI, which handlers can call themselves",
    "ts.launcher": "start twisted-serve, or put twisted_serve.service.ModelServer into a Twisted application",
    "ts.llm_launcher": "it starts TorchServe around vLLM's former engine; vLLM has a server of its own",
    "ts.metrics.metric_abstract": "it is how TorchServe's metrics worked inside",
    "ts.metrics.metric_cache_abstract": "it is how TorchServe's metrics worked inside",
    "ts.metrics.metric_collector": "the server reads processors, memory, disk and GPUs itself",
    "ts.metrics.metric_encoder": "a metric's to_dict is what it wrote",
    "ts.metrics.process_memory_metric.check_process_mem_usage": "the server reads its workers' memory itself",
    "ts.metrics.system_metrics.gpu_utilization": "the server reads GPUs itself",
    "ts.model_loader": "loading a handler is the worker's own affair",
    "ts.model_server": "the command is twisted-serve",
    "ts.model_service": "these are classes of MMS, which TorchServe itself could not load any more",
    "ts.model_service_worker": "a worker is started by the server alone",
    "ts.protocol": "the protocol between server and worker is another one",
    "ts.torch_handler.dali_handler": "it needs NVIDIA's DALI, which handlers can call themselves",
    "ts.torch_handler.dali_image_classifier": "it needs NVIDIA's DALI, which handlers can call themselves",
    "ts.torch_handler.densenet_handler": "it unpickled what clients sent; image_classifier serves such models",
    "ts.torch_handler.distributed": "PiPPy is not developed any more; call DeepSpeed from a BaseHandler",
    "ts.torch_handler.trt_llm_handler": "it is for one former version of TensorRT-LLM, which has a server of its own",
    "ts.torch_handler.vllm_handler": "it is for one former version of vLLM, which has a server of its own",
    "ts.utils.hf_utils": "archives bring their models; huggingface_hub.snapshot_download gets them beforehand",
    "ts.utils.timeit_decorator": "it calls time.clock, which Python has not had since 3.8; timed measures",
}

_PAGE = "docs/ts_names.md lists what is"


class TsFinder:
    """
    Finds ``ts`` and the modules below it, in :data:`NAMES` and nowhere else.

    It is finder and loader without their abstract base classes, whose import would take each worker 20 ms.
    """

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """
        Return the spec of one of TorchServe's modules; ``None`` for other packages.

        :raise ModuleNotFoundError: for a module below ``ts`` that we do not provide.
        """
        if fullname != "ts" and not fullname.startswith("ts."):
            return None
        if fullname not in NAMES:
            raise ModuleNotFoundError(_refusal(fullname), name=fullname)
        return ModuleSpec(fullname, cast("Loader", self), origin="twisted_serve", is_package=_is_package(fullname))

    def create_module(self, spec: ModuleSpec) -> None:
        """Return ``None``: the import system creates the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Set up the module's names to be imported on first use: importing one must not import all."""
        targets = dict(target(entry) for entry in NAMES[module.__name__])

        def resolve(name: str) -> Any:
            if name not in targets:
                refusal = _refusal(f"{module.__name__}.{name}")
                # ``from ts.… import name`` would replace the message of an AttributeError.
                if _is_importing_from(sys._getframe(1)):
                    raise ImportError(refusal, name=module.__name__)
                raise AttributeError(refusal)
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


def _refusal(fullname: str) -> str:
    """Return the message for a module or name that we do not provide, with the reason."""
    reasons = (why for each, why in MISSING.items() if f"{fullname}.".startswith(f"{each}."))
    why = next(reasons, "")
    return f"{fullname} is not provided by twisted_serve{f': {why}' if why else ''}; {_PAGE}"


def _is_importing_from(frame: FrameType) -> bool:
    # Other accesses must raise AttributeError: pickle, for one, looks up names in all modules.
    return frame.f_code.co_code[frame.f_lasti] == opmap["IMPORT_FROM"]


def target(entry: str) -> tuple[str, tuple[str, str]]:
    """Split an entry of :data:`NAMES` into TorchServe's name, and our module and name."""
    place, _, name = entry.partition(":")
    attribute, _, alias = name.partition(" as ")
    return alias or attribute, (place, attribute)
