# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.assembly.dependencies`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve.assembly.dependencies
import twisted_serve.assembly.server
from twisted_serve.assembly.dependencies import count_gpus, utc_now, visible_environment
from twisted_serve.assembly.server import cors_headers
from twisted_serve.config.options import ServerOptions


class SurroundingsTests(SynchronousTestCase):
    """Tests for what is taken from outside."""

    def test_environment(self) -> None:
        """Workers see the server's environment, but for what is kept back, and what is nobody's business."""
        environ = {"PATH": "/bin", "AWS_SECRET": "x", "AWS": "y", "TS_KEYSTORE_PASS": "z"}
        visible = visible_environment(environ, ServerOptions(blacklist_env_vars="AWS_.*"))
        told = {
            "TS_DECODE_INPUT_REQUEST": "true",
            "TS_REQUEST_SEQUENCE_ID": "ts_request_sequence_id",
            "TS_REQUEST_SEQUENCE_START": "ts_request_sequence_start",
            "TS_REQUEST_SEQUENCE_END": "ts_request_sequence_end",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.assertEqual(visible, {"PATH": "/bin", "AWS": "y", **told})
        self.assertIn("AWS_SECRET", visible_environment(environ, ServerOptions()))

    def test_told(self) -> None:
        """Switches which are for handlers reach them."""
        visible = visible_environment({}, ServerOptions(ipex_enable=True, ipex_gpu_enable=True))
        self.assertEqual((visible["TS_IPEX_ENABLE"], visible["TS_IPEX_GPU_ENABLE"]), ("true", "true"))

    def test_environment_wins(self) -> None:
        """An operator who wants bytecode written can have it."""
        visible = visible_environment({"PYTHONDONTWRITEBYTECODE": ""}, ServerOptions())
        self.assertEqual(visible["PYTHONDONTWRITEBYTECODE"], "")

    def test_gpus(self) -> None:
        """GPUs are counted as the kernel lists them, up to the configured number."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        for gpu in ("0", "1", "2"):
            (directory / gpu).mkdir()
        with patch.object(twisted_serve.assembly.dependencies, "_NVIDIA", directory):
            self.assertEqual([count_gpus(limit, {}) for limit in (None, 2, 9, 0)], [3, 2, 3, 0])
            for text, visible in (
                ("", 0),
                ("0", 1),
                ("2,0", 2),
                (" 1 , 2 ", 2),
                ("0,1,2,3", 3),
                ("-1", 0),
                ("0,-1,1", 1),
                ("0,9,1", 1),
                ("NoDevFiles", 0),
                ("GPU-8932f937", 1),
                ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1", 2),
                ("MIG-1,MIG-2,MIG-3,MIG-4", 4),
            ):
                self.assertEqual(count_gpus(None, {"CUDA_VISIBLE_DEVICES": text}), visible, text)
            self.assertEqual(count_gpus(2, {"CUDA_VISIBLE_DEVICES": "0,1,2"}), 2)
        with patch.object(twisted_serve.assembly.dependencies, "_NVIDIA", directory / "absent"):
            self.assertEqual(count_gpus(None, {}), 0)
            self.assertEqual(count_gpus(None, {"CUDA_VISIBLE_DEVICES": "GPU-1"}), 0)

    def test_cors(self) -> None:
        """Only what is configured is sent, word for word."""
        options = ServerOptions(cors_allowed_origin="https://a.example", cors_allowed_methods="GET, \xe4")
        self.assertEqual(
            cors_headers(options),
            {b"Access-Control-Allow-Origin": b"https://a.example", b"Access-Control-Allow-Methods": b"GET, \xe4"},
        )
        self.assertEqual(cors_headers(ServerOptions()), {})

    def test_now(self) -> None:
        """The time has a zone, which is UTC."""
        self.assertEqual(utc_now().tzname(), "UTC")
