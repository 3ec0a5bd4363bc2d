# SPDX-License-Identifier: Apache-2.0
"""
List TorchServe's settings that have no effect here.

They are accepted, so that a working configuration keeps working; for each, the log
has a line with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def _because(reason: str, keys: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(keys, reason)


#: Keys that a working configuration of TorchServe may have, and the reasons why they have no effect here.
ACCEPTED_WITHOUT_EFFECT: Mapping[str, str] = {
    **_because(
        "there is no Java here",
        (
            "async_logging",
            "io_ratio",
            "model_server_home",
            "netty_client_threads",
            "number_of_netty_threads",
            "prefer_direct_buffer",
            "use_native_io",
            "vmargs",
        ),
    ),
    **_because("a note of the server that wrote the file", ("tsConfigFile", "version")),
    "system_metrics_cmd": "the server reads the machine's figures itself",
    **_because(
        "workers share the processors among them: OMP_NUM_THREADS, and taskset or numactl for the server, are heeded",
        ("cpu_launcher_args", "cpu_launcher_enable"),
    ),
    "debug": "the server always starts its workers itself; describe has their pids, for a debugger to attach to",
    "initial_distribution_port": "workers of several processes (torchrun) are not built yet",
    "cpp_log_config": "there are no C++ workers here",
}
