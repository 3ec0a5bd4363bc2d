# SPDX-License-Identifier: Apache-2.0
"""Tests for the files of the log, and for what opens them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from datetime import date, datetime, time
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.options import ServerOptions
from twisted_serve.config.values import ConfigError
from twisted_serve.logs import log_access, log_lines, log_model_output
from twisted_serve.logs.configuration import read_log_configuration
from twisted_serve.logs.files import RotatingFile
from twisted_serve.logs.setup import OpenLog, open_log

KEY = "Zq3-_xW9aBcDeFgHiJkLmN"
NAMES = ["access_log.log", "model_log.log", "model_metrics.log", "ts_log.log", "ts_metrics.log"]


class FilesTestCase(SynchronousTestCase):
    """A directory, and a log in it."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.out = StringIO()
        self.clock = Clock()
        self.day = date(2026, 1, 1)

    def open(self, **options: Any) -> OpenLog:
        logs = self.directory / "logs"
        settings = ServerOptions(**{"log_location": logs, "metrics_location": logs, **options})
        return open_log(settings, self.out, lambda: [KEY], self.clock.callLater, lambda: self.day)

    def say(self, opened: OpenLog) -> None:
        """Log one line of each logger."""
        log = Logger("twisted_serve.x", observer=opened.observer)
        log.info("started")
        log_access(log, peer=("::1", 5), method=b"GET", target=b"/ping", version=b"HTTP/1.1", status=200, elapsed=0.001)
        log_model_output(log, "W-9000-m_1.0", "stderr", "printed")
        log_lines(log, "TS_METRICS", ["QueueTime.Milliseconds:0.0|#Level:Host|#hostname:h,timestamp:1"])
        log_lines(log, "MODEL_METRICS", ["A.ms:1.0", "B.ms:2.0"])
        opened.observer.close()

    def read(self, name: str) -> list[str]:
        return (self.directory / "logs" / name).read_text().splitlines()


class FilesTests(FilesTestCase):
    """The predecessor's five files."""

    def test_files(self) -> None:
        """All are there at once, for nobody else's eyes; each has its lines in its pattern; one has everything."""
        opened = self.open()
        logs = self.directory / "logs"
        self.assertEqual(sorted(os.listdir(logs)), NAMES)
        self.assertEqual({path.stat().st_mode & 0o777 for path in logs.iterdir()}, {0o640})
        self.assertEqual(logs.stat().st_mode & 0o007, 0)
        self.say(opened)
        moment = r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} "
        [access] = self.read("access_log.log")
        self.assertRegex(access, moment + r'- /::1:5 "GET /ping HTTP/1.1" 200 1\Z')
        [model] = self.read("model_log.log")
        self.assertRegex(model, moment + r"\[WARN \] W-9000-m_1.0-stderr MODEL_LOG - printed\Z")
        [metric] = self.read("ts_metrics.log")
        self.assertRegex(metric, moment + r"- QueueTime.Milliseconds:0.0\|#Level:Host\|#hostname:h,timestamp:1\Z")
        self.assertEqual([line[26:] for line in self.read("model_metrics.log")], ["A.ms:1.0", "B.ms:2.0"])
        self.assertEqual(len(self.read("ts_log.log")), 6)
        self.assertEqual(self.out.getvalue().splitlines(), self.read("ts_log.log"))

    def test_benchmark(self) -> None:
        """The predecessor's benchmark finds the value of a metric on the console, by counting colons."""
        self.say(self.open())
        line = next(line for line in self.out.getvalue().splitlines() if "QueueTime" in line)
        self.assertEqual(line.partition("|")[0].split(":")[3], "0.0")

    def test_appended(self) -> None:
        """A server that starts again goes on where the last one ended."""
        noon = datetime.combine(self.day, time(12)).timestamp()
        self.say(self.open())
        for path in (self.directory / "logs").iterdir():
            os.utime(path, (noon, noon))
        self.say(self.open())
        self.assertEqual(len(self.read("access_log.log")), 2)

    def test_json(self) -> None:
        """With ``log_format=json`` every line of every file, and of the console, is an object."""
        self.say(self.open(log_format="json"))
        lines = [line for name in NAMES for line in self.read(name)] + self.out.getvalue().splitlines()
        self.assertEqual(len(lines), 17)
        self.assertEqual({json.loads(line)["thread"] for line in lines}, {"main", "W-9000-m_1.0-stderr"})
        self.assertEqual(json.loads(self.read("access_log.log")[0])["status"], 200)

    def test_levels(self) -> None:
        """What is switched off is written nowhere."""
        self.say(self.open(log_level="warn", log_levels="ACCESS_LOG=info"))
        self.assertEqual([len(self.read(name)) for name in NAMES], [1, 1, 0, 2, 0])

    def test_none(self) -> None:
        """No files where none are wanted."""
        self.say(self.open(log_files=False))
        self.say(self.open(log_location=None, metrics_location=None))
        self.assertFalse((self.directory / "logs").exists())
        self.assertIn("started", self.out.getvalue())

    def test_not_writable(self) -> None:
        """Where nothing can be written the console goes on, and the operator is told."""
        (self.directory / "logs").write_text("in the way")
        opened = self.open(metrics_location=self.directory / "metrics")
        self.assertEqual(len(opened.warnings), 1)
        self.assertIn(f"There are no log files in {self.directory / 'logs'}: ", opened.warnings[0])
        self.say(opened)
        self.assertIn("started", self.out.getvalue())
        self.assertEqual(len((self.directory / "metrics" / "ts_metrics.log").read_text().splitlines()), 1)


class RotationTests(FilesTestCase):
    """How files are begun anew."""

    def test_size(self) -> None:
        """A file that is too large becomes the first of the old ones; of these only some are kept."""
        path = self.directory / "f.log"
        file = RotatingFile(path, 10, 2, lambda: self.day)
        for number in range(5):
            file.write(b"%d" % number * 10)
        found = {each.name: each.read_text()[0] for each in self.directory.iterdir()}
        self.assertEqual(found, {"f.log": "4", "f.log.1": "3", "f.log.2": "2"})
        self.assertEqual({each.stat().st_mode & 0o777 for each in self.directory.iterdir()}, {0o640})
        file.close()

    def test_day(self) -> None:
        """So does one of yesterday, unless nothing is in it."""
        path = self.directory / "f.log"
        file = RotatingFile(path, 1000, 2, lambda: self.day)
        self.day = date(2026, 1, 2)
        file.write(b"a")
        self.assertEqual(os.listdir(self.directory), ["f.log"])
        self.day = date(2026, 1, 3)
        file.write(b"b")
        file.write(b"c")
        self.assertEqual((self.directory / "f.log.1").read_text(), "a")
        self.assertEqual(path.read_text(), "bc")
        file.close()
        os.utime(path, (0, 0))
        again = RotatingFile(path, 1000, 2, lambda: self.day)
        again.write(b"d")
        again.close()
        self.assertEqual(path.read_text(), "d")


class ConfigurationTests(FilesTestCase):
    """The file of ``--log-config``."""

    def write(self, text: str) -> Path:
        path = self.directory / "log.conf"
        path.write_text(text)
        return path

    def test_log4j(self) -> None:
        """Of the predecessor's XML the levels count; that the rest does not is said."""
        path = self.write(
            '<?xml version="1.0" encoding="UTF-8"?>\n<Configuration><Appenders><Console name="C"/></Appenders><Loggers>'
            '<Logger name="ACCESS_LOG" level="off"/><Logger name="org.pytorch.serve" level="error"/>'
            '<Root level="INFO"><AppenderRef ref="C"/></Root></Loggers></Configuration>'
        )
        opened = self.open(log_config=path)
        self.assertEqual(
            list(opened.warnings), [f"Of {path} the levels count; appenders, layouts and filters have no effect"]
        )
        self.say(opened)
        self.assertNotIn("started", self.out.getvalue())
        self.assertIn("printed", self.out.getvalue())
        self.assertEqual(self.read("access_log.log"), [])

    def test_log4j_properties(self) -> None:
        """So do they in log4j2's properties, in both of its ways to write them."""
        for text in (
            "status = error\nappender.console.type = Console\nlogger.access.name = ACCESS_LOG\n"
            "logger.access.level = off\nlogger.ts.name=org.pytorch.serve\nlogger.ts.level: error\n"
            "rootLogger.level = INFO\nrootLogger.appenderRef.stdout.ref = C\n",
            "rootLogger = INFO, C\nlogger.a = off, C\nlogger.a.name = ACCESS_LOG\n"
            "logger.b = error\nlogger.b.name = org.pytorch.serve\n",
        ):
            path = self.write(text)
            read = read_log_configuration(path)
            self.assertEqual(read.levels, {"": "info", "ACCESS_LOG": "off", "twisted_serve": "error"})
            self.assertIn(f"Of {path} the levels count", self.open(log_config=path).warnings[0])

    def test_ignored(self) -> None:
        """A file of log4j 1, or one of log4j2 that cannot be read here, changes nothing, and the log says so."""
        for text, why in (
            (
                "# old\nlog4j.rootLogger=INFO, stdout\nlog4j.appender.stdout=org.apache.log4j.ConsoleAppender\n",
                "log4j 1",
            ),
            ("log4j.logger.com.amazonaws.ml.ts=DEBUG, x\n", "log4j 1"),
            ('{"Configuration": {"Loggers": {"Root": {"level": "off"}}}}', "log4j2"),
            ("Configuration:\n  status: warn\n", "log4j2"),
        ):
            path = self.write(text)
            opened = self.open(log_config=path)
            [warning] = opened.warnings
            self.assertIn(f"{path} has no effect: ", warning)
            self.assertIn(why, warning)
            self.say(opened)
            self.assertIn("started", self.out.getvalue())

    def test_python(self) -> None:
        """A configuration of Python's logging decides alone where lines go."""
        target = self.directory / "python.log"
        path = self.write(
            "version: 1\ndisable_existing_loggers: false\n"
            "formatters: {f: {format: '%(levelname)s %(threadName)s %(name)s %(message)s'}}\n"
            f"handlers: {{h: {{class: logging.FileHandler, filename: '{target}', formatter: f}}}}\n"
            "loggers: {twisted_serve: {handlers: [h], level: INFO, propagate: false},\n"
            "  MODEL_LOG: {handlers: [h], level: WARN, propagate: false}}\n"
        )

        def forget() -> None:
            for name in ("twisted_serve", "MODEL_LOG"):
                logger = logging.getLogger(name)
                for handler in list(logger.handlers):
                    logger.removeHandler(handler)
                    handler.close()
                logger.propagate = True
                logger.setLevel(logging.NOTSET)

        self.addCleanup(forget)
        opened = self.open(log_config=path)
        self.say(opened)
        Logger("twisted_serve.y", observer=opened.observer).info("100 % {x}", x="%s")
        Logger("twisted_serve.z", observer=opened.observer).info("{x}", x=f"a {KEY}")
        self.assertEqual(
            target.read_text().splitlines(),
            [
                "INFO main twisted_serve.x started",
                "WARNING W-9000-m_1.0-stderr MODEL_LOG printed",
                "INFO main twisted_serve.y 100 % %s",
                "INFO main twisted_serve.z a <redacted>",
            ],
        )
        self.assertEqual((self.out.getvalue(), (self.directory / "logs").exists()), ("", False))

    def test_broken(self) -> None:
        """A file that is neither is refused, by name."""
        for text in ("<Configuration>", "version: 2", "[", "", "version: 1\nhandlers: {h: {class: no.such}}", "x"):
            path = self.write(text)
            error = self.assertRaises(ConfigError, self.open, log_config=path)
            self.assertIn(str(path), str(error))
            self.assertEqual(error.key, "log_config")
        self.assertRaises(ConfigError, self.open, log_config=self.directory / "none")
