# SPDX-License-Identifier: Apache-2.0
"""Tests for what is measured of a whole server, in memory."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.tokens import TokenKind
from twisted_serve.config.values import ConfigError
from twisted_serve.metrics.torchserve import log as metric_log
from twisted_serve.testing.server import Answer, MemoryServer


class MeasuringTests(SynchronousTestCase):
    """A server, what it shows, and what it logs."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def server(self, **options: Any) -> MemoryServer:
        server = MemoryServer(options, models={"m": {}})
        self.addCleanup(server.close)
        return server

    def predict(self, server: MemoryServer, path: str = "/predictions/m", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return server.request("POST", path, server.key(TokenKind.INFERENCE), named, b"x")

    def lines(self, logger: str) -> list[str]:
        return [
            line for event in self.events if event.get("logger_name") == logger for line in event["line"].split("\n")
        ]

    def test_first_scrape(self) -> None:
        """In the usual mode the first scrape has the workers and queues, and what a prediction took."""
        server = self.server()
        self.predict(server)
        text = server.request("GET", "/metrics").body.decode()
        for line in [
            'ts_workers{model_name="m",model_version="1.0",state="ready",} 1.0',
            'ts_workers_idle{model_name="m",model_version="1.0",} 1.0',
            'ts_queue_depth{model_name="m",model_version="1.0",} 0.0',
            'ts_request_latency_seconds_count{model_name="m",model_version="1.0",} 1.0',
            'ts_inference_requests_total{model_name="m",model_version="default",hostname=',
        ]:
            self.assertIn(line, text)

    def test_log_mode(self) -> None:
        """The predecessor's metrics are lines of the log, soon, and all of them when the server ends."""
        server = self.server()
        self.predict(server)
        self.assertEqual(self.lines("TS_METRICS"), [])
        server.clock.advance(metric_log.GATHERING)
        names = [line.partition(".")[0] for line in self.lines("TS_METRICS")]
        for name in ("Requests2XX", "QueueTime", "ts_inference_latency_microseconds", "WorkerLoadTime"):
            self.assertIn(name, names)
        self.predict(server, "/predictions/none")
        server.close()
        self.assertIn("Requests4XX", self.lines("TS_METRICS")[-1])

    def test_prometheus_mode(self) -> None:
        """With ``metrics_mode=prometheus`` they are on ``/metrics``, which can be asked for some of them."""
        server = self.server(metrics_mode="prometheus", disable_system_metrics=False)
        self.predict(server)
        text = server.request("GET", "/metrics?name[]=Requests2XX&name[]=MemoryUsed").body.decode()
        self.assertRegex(text, r'Requests2XX\{Level="Host",Hostname=".+",\} \d+\.\d+')
        self.assertRegex(text, r'MemoryUsed\{Level="Host",Hostname=".+",\} \d+\.\d+')
        self.assertNotIn("ts_", text)
        server.clock.advance(0.1)
        self.assertEqual(self.lines("TS_METRICS"), [])

    def test_system_metrics(self) -> None:
        """The machine is read at once and again after each interval, until the server ends."""
        server = self.server(disable_system_metrics=False, metric_time_interval=10)
        for times in (1, 2):
            server.clock.advance(metric_log.GATHERING)
            self.assertEqual(sum("CPUUtilization.Percent:" in line for line in self.lines("TS_METRICS")), times)
            server.clock.advance(10)
        server.close()
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def test_broken_file(self) -> None:
        """A file of metrics that cannot be used is a configuration that cannot be used."""
        error = self.assertRaises(ConfigError, self.server, metrics_config="/nowhere/metrics.yaml")
        self.assertIn("metrics_config in /nowhere/metrics.yaml", str(error))

    def test_worker_lines(self) -> None:
        """The lines that scripts wait for are there, with the worker's name."""
        self.server()
        said = [(event.get("log_format", "").format(**event), event.get("thread_name")) for event in self.events]
        for line in [
            ("W-9000-m_1.0 State change null -> WORKER_STARTED", "W-9000-m_1.0"),
            ("Torch worker started.", "W-9000-m_1.0-stdout"),
            ("W-9000-m_1.0 State change WORKER_STARTED -> WORKER_MODEL_LOADED", "W-9000-m_1.0"),
        ]:
            self.assertIn(line, said)

    def test_server_timing(self) -> None:
        """Switched on, each answer says where the time went; otherwise none does."""
        number = r"\d+\.\d{3}"
        answer = self.predict(self.server(server_timing=True))
        self.assertRegex(
            answer.headers["server-timing"], rf"\Aqueue;dur={number}, handler;dur={number}, total;dur={number}\Z"
        )
        self.assertNotIn("server-timing", self.predict(self.server()).headers)

    def test_request_id(self) -> None:
        """A client's own id is on its answer and in the access log, and worker's id begins with it; two may have it."""
        server = self.server()
        for _ in range(2):
            answer = self.predict(server, x_request_id="abc-1")
            self.assertEqual(answer.headers["x-request-id"], "abc-1")
        first, second = (batch[0].request_id for batch in server.provider.workers[0].batches)
        self.assertNotEqual(first, second)
        self.assertRegex(first, r"\Aabc-1\.[0-9a-f]{16}\Z")
        self.assertRegex(self.lines("ACCESS_LOG")[-1], r'"POST /predictions/m HTTP/1.1" 200 \d+ abc-1\Z')

    def test_hostile_request_id(self) -> None:
        """An id that could end a header, a line or a list of ids is as none."""
        server = self.server()
        for hostile in ("a,b", "a b", "a\tb", "x" * 129, '"', "\xe4"):
            answer = self.predict(server, x_request_id=hostile)
            self.assertRegex(answer.headers["x-request-id"], r"\A[0-9a-f-]{36}\Z")
            self.assertRegex(self.lines("ACCESS_LOG")[-1], r" 200 \d+\Z")


class MetricsTokenTests(SynchronousTestCase):
    """A token for ``/metrics``."""

    def setUp(self) -> None:
        self.server = MemoryServer()
        self.addCleanup(self.server.close)
        self.file = self.server.directory / "metrics_token"
        self.file.write_text("sesame-open\n")
        self.guarded = MemoryServer({"metrics_token_file": self.file})
        self.addCleanup(self.guarded.close)

    def status(self, *authorization: str) -> int:
        headers = {"Authorization": authorization[0]} if authorization else {}
        return self.guarded.request("GET", "/metrics", headers=headers).status

    def test_token(self) -> None:
        """Whoever has it sees the metrics; nobody else does, with the server's own keys neither."""
        self.assertEqual(self.status("Bearer sesame-open"), 200)
        self.assertEqual(self.status("bearer sesame-open"), 200)
        for wrong in (
            "Bearer sesame-ope",
            "Bearer sesame-open2",
            "Basic sesame-open",
            "Bearer",
            "Bearer sesame-open x",
        ):
            self.assertEqual(self.status(wrong), 401)
        for kind in TokenKind:
            self.assertEqual(self.status(f"Bearer {self.guarded.key(kind)}"), 401)
        answer = self.guarded.request("GET", "/metrics")
        self.assertEqual((answer.status, answer.headers["www-authenticate"]), (401, "Bearer"))
        self.assertEqual(answer.json["type"], "UnauthorizedException")
        self.assertNotIn("ts_", json.dumps(answer.json))

    def test_probes(self) -> None:
        """Probes need none."""
        self.assertEqual(self.guarded.request("GET", "/livez").status, 200)

    def test_replaced(self) -> None:
        """A token that was replaced holds at once; while there is none, nobody is let in."""
        self.file.write_text("another-one")
        self.assertEqual((self.status("Bearer sesame-open"), self.status("Bearer another-one")), (401, 200))
        self.assertIn("another-one", self.guarded.server.secrets)
        for broken in ("", "short", "two words", "x" * 600):
            self.file.write_text(broken)
            self.assertEqual(self.status(f"Bearer {broken}"), 401)
        self.file.unlink()
        self.assertEqual(self.status("Bearer another-one"), 401)
        self.file.write_text("sesame-open")
        self.assertEqual(self.status("Bearer sesame-open"), 200)

    def test_no_token(self) -> None:
        """A server does not start with a file that has none, and says which."""
        self.file.write_text("")
        error = self.assertRaises(ValueError, MemoryServer, {"metrics_token_file": self.file})
        self.assertIn(f"metrics_token_file must be a file with a token, not {self.file}", str(error))
