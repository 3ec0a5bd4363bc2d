# SPDX-License-Identifier: Apache-2.0
"""
Ask a server for its models, and judge their workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted_serve.subcommands.client import Answer, expect
from twisted_serve.subcommands.outcomes import Failed
from twisted_serve.subcommands.session import Session, path_of

# More pages than any server has; one that never ends its list is broken.
_PAGES = 10_000


def all_models(session: Session) -> list[dict[str, Any]]:
    """
    Return each model with its versions: ``modelName``, ``modelUrl``, ``versions``.

    A version is as the server describes it, with the member ``default``.

    :raise Failed: when the server refuses.
    """
    found = []
    for model in pages(session, "/models", "models"):
        versions = versions_of(session, expect(model, str, "modelName"))
        # One that was unregistered meanwhile is left out.
        if versions:
            found.append({**model, "versions": versions})
    return found


def versions_of(session: Session, name: str) -> list[dict[str, Any]]:
    """
    Return the versions of a model; none for an unknown model.

    :raise Failed: when the server refuses.
    """
    path = path_of("models", name)
    answer = session.ask("management", "GET", f"{path}/all")
    if answer.status == 404:
        return []
    if (refusal := session.refusal(answer, "management")) is not None:
        raise refusal
    versions = members_of(answer)
    if len(versions) == 1:
        default = versions[0].get("modelVersion")
    else:
        described = session.ask("management", "GET", path)
        default = (
            next((each.get("modelVersion") for each in members_of(described)), None) if described.status < 400 else None
        )
    return [{**each, "default": each.get("modelVersion") == default} for each in versions]


def members_of(answer: Answer) -> list[dict[str, Any]]:
    """
    Return the objects of a list.

    :raise Failed: when the answer is another.
    """
    return [expect(each, dict) for each in expect(answer.json(), list)]


def pages(session: Session, path: str, member: str, kind: str | None = None) -> Iterator[dict[str, Any]]:
    """
    Yield the entries of a list that the server gives in pages.

    :param member: The member of a page with the entries.
    :param kind: The kind of the key, if not the management key.
    :raise Failed: when the server refuses.
    """
    following: object = None
    for _page in range(_PAGES):
        query = {"limit": 100, "next_page_token": following}
        page = session.call("management", "GET", path, kind=kind, query=query).members()
        yield from (expect(each, dict) for each in expect(page, list, member))
        following = page.get("nextPageToken")
        if following is None:
            return
    raise Failed("The server's list has no end.")


def ready_workers(version: dict[str, Any]) -> int:
    """Return the number of a version's workers that are ready."""
    return sum(each.get("status") == "READY" for each in version.get("workers", []))


def state_of(version: dict[str, Any]) -> tuple[str, str]:
    """Return ``ready``, ``loading``, ``failing`` or ``no workers`` for a version, and the reason of a failure."""
    workers = version.get("workers", [])
    reasons = [str(each["reason"]) for each in workers if each.get("reason")]
    if not workers:
        return "no workers", ""
    ready = ready_workers(version)
    if ready and ready >= version.get("minWorkers", 0):
        return "ready", ""
    if reasons:
        return "failing", reasons[0].strip().splitlines()[-1]
    return "loading", ""
