# SPDX-License-Identifier: Apache-2.0
"""
The handlers under Triton with its Python backend: the server of the ``nvidia-pytriton`` wheel.

Triton reads its own protocol: tensors, in JSON or, for the image, as bytes after a header in JSON.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytriton
from served import BATCHES

MODEL = """
import sys
sys.path[:0] = {path!r}
import numpy
import triton_python_backend_utils as utils
from served import handler_of


class TritonPythonModel:
    def initialize(self, args):
        self.handler = handler_of({case!r})

    def execute(self, requests):
        bodies = [utils.get_input_tensor_by_name(each, "body").as_numpy() for each in requests]
        rows = [row for body in bodies for row in (body.tolist() if {numbers!r} else [body.tobytes()])]
        answers = self.handler.handle([{{"body": row}} for row in rows], None)
        return [
            utils.InferenceResponse([utils.Tensor("answer", numpy.array([[str(each)]], dtype=object))])
            for each in answers
        ]
"""

CONFIG = """
name: "{case}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "body" data_type: {type} dims: [ -1 ] }} ]
output [ {{ name: "answer" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
{batching}
"""


def main():
    """Write the model, and become the server."""
    case, port = sys.argv[1], sys.argv[2]
    numbers = case not in ("noop", "image")
    batch = BATCHES.get(case, 1)
    directory = Path(tempfile.mkdtemp())
    model = directory / "models" / case / "1"
    model.mkdir(parents=True)
    (model / "model.py").write_text(
        MODEL.format(path=[str(Path(__file__).resolve().parent), *sys.path], case=case, numbers=numbers)
    )
    batching = "dynamic_batching { max_queue_delay_microseconds: 5000 }" if batch > 1 else ""
    (model.parent / "config.pbtxt").write_text(
        CONFIG.format(case=case, batch=batch, type="TYPE_FP32" if numbers else "TYPE_UINT8", batching=batching)
    )
    home = Path(pytriton.__file__).parent / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not (home / "backends" / "python" / stub.name).exists():
        shutil.copy(stub, home / "backends" / "python")
    libraries = Path(sys.base_prefix) / "lib"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]),
        "PYTHONHOME": sys.base_prefix,
    }
    program = home / "bin" / "tritonserver"
    os.chmod(program, 0o755)
    os.execve(
        program,
        [
            str(program),
            f"--model-repository={directory / 'models'}",
            f"--backend-directory={home / 'backends'}",
            "--http-address=127.0.0.1",
            f"--http-port={port}",
            "--allow-grpc=false",
            "--allow-metrics=false",
            f"--backend-config=python,shm-region-prefix-name=bench{os.getpid()}",
        ],
        environment,
    )


if __name__ == "__main__":
    main()
