# SPDX-License-Identifier: Apache-2.0
"""The kinds of wrong archives, handlers and calls, and what is said of each."""

from __future__ import annotations

import json
from typing import ClassVar, TypeAlias, Union

from attrs import field, frozen

from twisted_serve.testing.strategies.archives import model_entries, zip_archive

# Says nonsense to the server, by whatever socket there is.
GARBAGE = """
for fd in range(3, 100):
    try:
        if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            os.write(fd, b"garbage!" * 100)
    except OSError:
        pass
time.sleep(3600)
"""


@frozen
class Case:
    """
    Something that is wrong.

    :ivar name: Its name among the others.
    :ivar row: The row of the page: its first cell.
    :ivar status: What its client gets …
    :ivar says: … and what is in the text, or in the ``reason``.
    :ivar logged: What is in the log; empty where only the client is told.
    """

    name: str
    row: str
    status: int
    says: str
    logged: str = ""


@frozen
class BadArchive(Case):
    """
    An archive that cannot be registered.

    :ivar data: The archive.
    :ivar suffix: How its file is called.
    """

    data: bytes = field(kw_only=True, repr=False)
    suffix: str = ".mar"


@frozen
class BadHandler(Case):
    """
    A handler that cannot be loaded, by a registration which waits for its worker.

    :ivar source: The handler.
    :ivar config: Its ``model-config.yaml``.
    :cvar suffix: How its file is called.
    """

    source: str = field(kw_only=True)
    config: dict[str, object] = field(factory=dict)
    suffix: ClassVar[str] = ".mar"

    @property
    def data(self) -> bytes:
        """The archive."""
        files = {"h.py": self.source.encode(), "config.yaml": json.dumps(self.config).encode()}
        return zip_archive(model_entries(files, modelName="bad", handler="h.py", configFile="config.yaml"))


@frozen
class BadCall(Case):
    """
    What a loaded handler does with a request.

    :ivar code: What it does.
    :ivar model: Who does it.
    :ivar spoils: Whether the worker, which lives on, is of no use to other tests.
    """

    code: str = field(kw_only=True)
    model: str = "victim"
    spoils: bool = False


AnyCase: TypeAlias = Union[BadArchive, BadHandler, BadCall]
