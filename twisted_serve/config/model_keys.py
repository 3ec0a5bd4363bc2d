# SPDX-License-Identifier: Apache-2.0
"""
Recognise a model's keys among the settings of a server, where they have no effect.
"""

from __future__ import annotations

from difflib import get_close_matches

#: Keys of a version in ``models`` (``docs/torchserve/config_cli.md`` §6); the last three have a meaning in a snapshot.
IN_MODELS = (
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
    "startupTimeout",
    "runtimeType",
    "defaultVersion",
    "marName",
    "parallelLevel",
)

#: Keys that only a ``model-config.yaml`` can have.
IN_MODEL_CONFIG = (
    "deviceType",
    "deviceIds",
    "parallelType",
    "maxRetryTimeoutInSec",
    "clientTimeoutInMills",
    "jobQueueSize",
    "useJobTicket",
    "continuousBatching",
    "sequenceBatching",
    "sequenceMaxIdleMSec",
    "sequenceTimeoutMSec",
    "maxNumSequence",
    "maxSequenceJobQueueSize",
    "asyncCommunication",
    "useVenv",
    "batchPolicy",
    "scaleUpDelayInMills",
    "scaleIdleTimeInSec",
    "isolateFailures",
    "retryOnWorkerDeath",
    "shareWeights",
    "openInference",
    "torchrun",
    "handler",
    "micro_batching",
    "pt2",
)

# Names that differ in a registration request.
_PARAMETERS = {"initialworkers": "minWorkers"}


def hint_for_setting(key: str) -> str | None:
    """Return where an unknown key belongs if it is a model's setting, in any spelling."""
    bare = plain(key)
    known = {**{plain(each): each for each in (*IN_MODEL_CONFIG, *IN_MODELS)}, **_PARAMETERS}
    meant = known.get(bare)
    if meant is None:
        near = get_close_matches(bare, known, n=1, cutoff=0.9)
        meant = known[near[0]] if near else None
    if meant is None:
        return None
    place = "models= or model-config.yaml" if meant in IN_MODELS else "model-config.yaml"
    return f"{meant} belongs to a model: in {place}"


def hint_for_member(member: str) -> str | None:
    """Return a hint on the intended key for a member of ``models`` that has no effect there, if one is similar."""
    bare = plain(member)
    for known in IN_MODEL_CONFIG:
        if bare == plain(known):
            return f"{known} belongs in model-config.yaml"
    by_name = {**{plain(each): each for each in IN_MODELS}, **_PARAMETERS}
    near = get_close_matches(bare, by_name, n=1)
    return f"did you mean {by_name[near[0]]}?" if near else None


def plain(key: str) -> str:
    """Return a key without what distinguishes ``batch_size``, ``batchSize`` and ``BATCH-SIZE``."""
    return key.replace("_", "").replace("-", "").lower()
