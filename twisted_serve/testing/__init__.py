# SPDX-License-Identifier: Apache-2.0
"""
Testing with a whole server, in memory and in virtual time; ``docs/testing.md`` shows how.

``server``      :class:`~twisted_serve.testing.server.MemoryServer`: the real server but for sockets, processes and time
``machine``     :class:`~twisted_serve.testing.machine.TokenMachine`: a Hypothesis state machine over keys and time
``memory``      its reactor, and connections of clients
``fakes``       workers which are no processes
``processes``   processes which end when they are told to
``strategies``  Hypothesis strategies for what the server reads and keeps

Hypothesis comes with the extra ``twisted-serve[testing]``; ``server`` and ``fakes`` do without.
"""
