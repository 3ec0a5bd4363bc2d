# SPDX-License-Identifier: Apache-2.0
"""
What the tests of the documentation share: reading a page's blocks, and running its commands as a reader would.

A page's fenced blocks have a meaning here:

``sh``           commands; all those of a page run in one bash session, in one directory, and must succeed
``text, json``   right after an ``sh`` block: what it prints, where ``...`` stands for anything
``properties``   a configuration, which must be accepted without a warning

``<!-- not run: reason -->`` before a block excuses it; ``<!-- needs: program -->`` does where there is no such program.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from attrs import evolve, frozen

from tests.ports import free_ports

DOCS = Path(__file__).resolve().parents[2] / "docs"

# Seconds in which all commands of a page have run, on a busy machine.
LONG = 1200

_FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.M | re.S)
_REMARK = re.compile(r"<!-- (?P<word>not run|needs): (?P<what>[^>]+?) -->\s*\Z")

# Puts the reader's server and requests on the ports of this test, and curl into the temper of a terminal.
_PRELUDE = r"""
set -euo pipefail
exec 2>&1
trap 'kill $(jobs -p) $(cat twistd.pid 2> /dev/null) 2> /dev/null || true' EXIT
on_ports() { sed -e "s/:8080/:$P8080/g; s/:8081/:$P8081/g; s/:8082/:$P8082/g; s/:7070/:$P7070/g; s/:7071/:$P7071/g"; }
curl() {
  local word words=()
  for word in "$@"; do
    word=${word//localhost:8080/127.0.0.1:$P8080}
    word=${word//localhost:8081/127.0.0.1:$P8081}
    words+=("${word//localhost:8082/127.0.0.1:$P8082}")
  done
  command curl -sS --max-time 30 "${words[@]}"
}
python() {
  local word words=()
  for word in "$@"; do
    if [[ $word == *.py ]]; then
      on_ports < "$word" > "$HIDDEN/$word"
      word=$HIDDEN/$word
    fi
    words+=("$word")
  done
  command python "${words[@]}"
}
twisted-serve() {
  if [[ $1 == --start ]]; then
    { printf '%s_address=http://127.0.0.1:%s\n' inference 8080 management 8081 metrics 8082
      printf 'grpc_%s_port=%s\n' inference "$P7070" management "$P7071"
      printf 'default_workers_per_model=1\n'
      if [[ -f config.properties ]]; then cat config.properties; fi; } | on_ports > "$HIDDEN/config.properties"
    command twisted-serve --ts-config "$HIDDEN/config.properties" "$@"
  else
    command twisted-serve "$@"
  fi
}
"""

_MARK = "\x01block {}\n"


GREET = 'def handle(data, context):\n    return data and [b"Hello, " + bytes(row["body"]) for row in data]\n'


@frozen
class Block:
    """
    A fenced block.

    :ivar place: The page and the line, for messages.
    :ivar expected: What it prints, if the page says so.
    :ivar excuse: Why it is not run, if it is not.
    """

    place: str
    language: str
    text: str
    expected: str | None = None
    excuse: str | None = None


ReadBlocks: TypeAlias = Callable[..., list[Block]]
RunCommands: TypeAlias = Callable[[list[Block]], Path]


def _excuse(before: str) -> str | None:
    remark = _REMARK.search(before)
    if remark is None:
        return None
    if remark["word"] == "needs":
        return None if shutil.which(remark["what"]) else f"there is no {remark['what']} here"
    return remark["what"]


def read_page(page: str) -> list[Block]:
    """Read all blocks of a page; one that shows output belongs to the commands before it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        before, last = text[end : match.start()], found[-1] if found else None
        end = match.end()
        follows = last is not None and last.language == "sh" and not before.strip()
        if last is not None and follows and last.expected is None and match["language"] in ("text", "json"):
            found[-1] = evolve(last, expected=match["text"])
            continue
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(f"docs/{page}:{line}", match["language"], match["text"], None, _excuse(before)))
    return found


def greet_model() -> list[Block]:
    """Return the commands of "Getting started" that make its model."""
    made = ("cat > greet.py", "mkdir model_store")
    return [evolve(block, expected=None) for block in read_page("getting_started.md") if block.text.startswith(made)]


def same_output(expected: str, printed: str) -> bool:
    """Say whether a page's output is what was printed; ``...`` stands for anything."""
    pattern = ".*?".join(re.escape(piece) for piece in expected.strip().split("..."))
    return re.fullmatch(pattern, printed.strip(), re.S) is not None


@pytest.fixture
def model_store(tmp_path: Path) -> Path:
    """Make a model store with one model, which greets."""
    model = tmp_path / "model_store" / "greet"
    (model / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": "greet", "modelVersion": "1.0", "handler": "handler.py"}}
    (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (model / "handler.py").write_text(GREET)
    return model.parent


@pytest.fixture
def read_blocks() -> ReadBlocks:
    """Return the function which reads a page's blocks, those of one language if one is given."""

    def read(page: str, language: str | None = None) -> list[Block]:
        return [block for block in read_page(page) if language in (None, block.language)]

    return read


@pytest.fixture
def run_commands(tmp_path: Path) -> Iterator[RunCommands]:
    """Return the function which runs blocks of commands in one session; it checks what they print."""
    here, hidden = tmp_path / "here", tmp_path / "hidden"
    here.mkdir()
    (hidden / "tmp").mkdir(parents=True)
    ports = dict(zip((8080, 8081, 8082, 7070, 7071), free_ports(5), strict=True))
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TS_", "XDG_RUNTIME_DIR"))},
        "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])),
        "TMPDIR": str(hidden / "tmp"),
        "HIDDEN": str(hidden),
        **{f"P{shown}": str(port) for shown, port in ports.items()},
    }

    def run(blocks: list[Block]) -> Path:
        runnable = [block for block in blocks if block.excuse is None]
        script = _PRELUDE + "".join(
            f"printf {_MARK.format(number)!r}\n{block.text}\n" for number, block in enumerate(runnable)
        )
        with (hidden / "output").open("w+b") as output:
            bash = subprocess.run(
                ["bash", "-c", script],
                cwd=here,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                timeout=LONG,
                check=False,
            )
            output.seek(0)
            said = output.read().decode().replace("\r\n", "\n")
        # The ports of the page again.
        for shown, port in ports.items():
            said = said.replace(f":{port}", f":{shown}")
        _unstarted, *printed = re.split(r"\x01block \d+\n", said)
        for block, text in zip(runnable, printed, strict=False):
            if block.expected is not None and not (bash.returncode and text == printed[-1]):
                assert same_output(block.expected, text), f"{block.place}: {block.text}printed\n{text}"
        place = runnable[len(printed) - 1].place
        assert bash.returncode == 0, f"{place} failed with {bash.returncode}:\n{printed[-1]}\n{_log(here)}"
        return here

    yield run
    subprocess.run(["twisted-serve", "--stop"], cwd=here, env=environ, capture_output=True, timeout=90, check=False)
    with suppress(OSError, ValueError):
        os.kill(int((hidden / "tmp" / ".model_server.pid").read_text()), signal.SIGKILL)


def _log(here: Path) -> str:
    log = here / "server.log"
    return log.read_text()[-4000:] if log.exists() else ""
