# SPDX-License-Identifier: Apache-2.0
"""
Find, read and discard the workflow archives of the workflow store.
"""

from __future__ import annotations

from pathlib import Path

from attrs import define, field, frozen

from twisted_serve.archives.intake import Intake, OpenedArchive, Places
from twisted_serve.archives.locating import StoreErrors
from twisted_serve.errors import InvalidModel, InvalidWorkflow, WorkflowNotFound
from twisted_serve.workflows.archive import Workflow, read_workflow

_ERRORS = StoreErrors(
    WorkflowNotFound, "Workflow not found in workflow store", "Workflow store has not been configured."
)


@frozen
class WorkflowArchive:
    """
    A workflow's files, ready to be registered.

    :ivar url: The location as the client sent it.
    """

    url: str
    workflow: Workflow
    files: OpenedArchive


@define(eq=False)
class WorkflowStore:
    """
    The directory in which workflows are found by name and into which they are fetched.

    :ivar path: The directory, or ``None`` if none is configured.
    """

    path: Path | None
    intake: Intake
    _places: Places = field(init=False)

    @_places.default
    def _of_workflows(self) -> Places:
        return Places(self.path, "workflows", _ERRORS, self.intake)

    async def open(self, url: str) -> WorkflowArchive:
        """
        Locate, fetch and unpack a workflow, and read its manifest and specification.

        After any error, cancellation included, no files are left behind.

        :raise ServeError: as `Places.open` and `read_workflow` do.
        """
        try:
            return await self._places.open(url, _read)
        except InvalidModel as e:
            # The archive code raises InvalidModel for any archive, but this one is a workflow.
            raise InvalidWorkflow(e.message) from e

    async def discard(self, archive: WorkflowArchive) -> None:
        """Delete the files that `open` created; a workflow that is served in place is kept."""
        await self._places.give_back(archive.files)


def _read(files: OpenedArchive) -> WorkflowArchive:
    return WorkflowArchive(files.url, read_workflow(files.directory, files.links), files)
