# SPDX-License-Identifier: Apache-2.0
"""
Tests for :mod:`twisted_serve.config.arguments`.
"""

from __future__ import annotations

import shlex
from argparse import ArgumentParser
from pathlib import Path
from typing import NoReturn

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.arguments import CommandLine, parse_command_line, parser

EVERY_FLAG = """
    --start --foreground --ts-config c --model-store m --workflow-store w --models a b=c --log-config l
    --cpp-log-config p --no-config-snapshots --plugins-path j --disable-token-auth --enable-model-api
"""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse(*words: str) -> CommandLine:
    """Read a command line; what is wrong is a ValueError."""
    return parse_command_line(words, parser(_Parser))


class ParseCommandLineTests(SynchronousTestCase):
    """The predecessor's command line."""

    def test_empty(self) -> None:
        """Nothing is asked for."""
        self.assertEqual(parse(), CommandLine())

    def test_all(self) -> None:
        """Every flag of the predecessor is understood."""
        self.assertEqual(
            parse(*shlex.split(EVERY_FLAG)),
            CommandLine(
                start=True,
                foreground=True,
                ts_config=Path("c"),
                model_store=Path("m"),
                workflow_store=Path("w"),
                models=("a", "b=c"),
                log_config=Path("l"),
                cpp_log_config=Path("p"),
                no_config_snapshots=True,
                plugins_path="j",
                disable_token_auth=True,
                enable_model_api=True,
            ),
        )

    def test_short(self) -> None:
        """The short forms, and prefixes of long ones which can only mean one."""
        self.assertEqual(
            parse("-v", "--ncs", "--ppath", "j", "--dt", "--model-s", "m"),
            CommandLine(
                version=True,
                no_config_snapshots=True,
                plugins_path="j",
                disable_token_auth=True,
                model_store=Path("m"),
            ),
        )
        self.assertTrue(parse("--sta").start)
        self.assertTrue(parse("--sto").stop)

    def test_wrong(self) -> None:
        """Flags which exclude each other, or do not exist, are refused."""
        for words in (["--start", "--stop"], ["--version", "--start"], ["--port", "1"], ["x"], ["--models"], ["--st"]):
            self.assertRaises(ValueError, parse, *words)
