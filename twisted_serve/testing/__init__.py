# SPDX-License-Identifier: Apache-2.0
"""
Test a whole server in memory and in virtual time; ``docs/testing.md`` shows how.

- `server`: `MemoryServer`, the real server except for sockets, processes and time
- `answers`: responses, and what a request presents
- `rpc`: a gRPC client, for the same
- `mounted`: `MountedServer`, the same behind the site of an application
- `sockets`: `SocketServer`, the same with real sockets
- `socket_reactor`: its reactor, with virtual time
- `machine`: `TokenMachine`, a Hypothesis state machine over keys and time
- `named_machine`: `NamedKeyMachine`, one over named keys
- `named_checks`: its server, and the check of each response
- `named_keys`, `key_store`, `exchange`: a plain model of keys, their file, requests byte by byte
- `history`: what machines have in common: a server, and the story of a failure
- `lives`: when keys end, and the check of the key file, for the machine
- `words`: moments and durations in its messages
- `memory`: the server's reactor, and client connections
- `fakes`: workers without processes
- `local_worker`: a handler run in the test's own process
- `processes`: fake processes that end when the test says so
- `pytest_plugin`: fixtures for pytest, which finds them by an entry point
- `strategies`: Hypothesis strategies for the server's values

Hypothesis is in the extra ``twisted-serve[testing]``; `server` and `fakes` do not need it.
"""
