# SPDX-License-Identifier: Apache-2.0
"""
Recognise keys of a model among the settings of a server, where they would have no effect.
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

#: What only a ``model-config.yaml`` can say.
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

# What a request for registration calls otherwise.
_PARAMETERS = {"initialworkers": "minWorkers"}


def hint_for_setting(key: str) -> str | None:
    """Return where a key belongs that is no setting of the server, if it is one of a model's, however it is spelt."""
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
    """Return what was meant by a member of ``models`` that has no effect there, if that can be told."""
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
