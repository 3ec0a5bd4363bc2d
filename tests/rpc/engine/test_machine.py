# SPDX-License-Identifier: Apache-2.0
"""Calls of one connection in any order: each ends exactly once, with the status that its client sees."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tests.rpc.engine.rig import Rig, message, unknown, values
from twisted_serve.rpc.frames import framed
from twisted_serve.testing.rpc import MemoryRpcCall, MemoryRpcConnection

WINDOW = 2000
MESSAGE = 10_000
UNSENT = 60_000
STREAMS = 8
PATHS = ["/s/Echo", "/s/Wait", "/s/Stream", "/s/Stream", "/s/Talk", "/s/Talk", "/s/None"]

sizes = st.sampled_from([0, 1, 100, WINDOW - 7, WINDOW, 3 * WINDOW, MESSAGE - 10])


class CallMachine(RuleBasedStateMachine):
    """
    A client, its server's methods, and time.

    h2, on the client's side, fails if the server sends more than a window, or a frame that does not belong there.
    """

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(
            window=WINDOW,
            message=MESSAGE,
            unsent=UNSENT,
            granted=2 * MESSAGE,
            body_timeout=50.0,
            streams=STREAMS,
            # The connection is idle for as long as the machine waits; test_strangers.py is about its end.
            stranger_timeout=1e6,
        )
        self.connection: MemoryRpcConnection = self.rig.connect(settings={4: 3000})
        self.begun: dict[str, MemoryRpcCall] = {}
        self.sent: dict[str, list[bytes]] = {}
        self.cancelled: set[str] = set()
        self.stalled = False
        self.answered: set[int] = set()

    def settle(self, seconds: float = 0) -> None:
        self.rig.advance(seconds, *([] if self.stalled else [self.connection]))

    @rule(
        target=calls,
        path=st.sampled_from(PATHS),
        key=st.sampled_from(["key"] * 7 + [None]),
        timeout=st.sampled_from([None, None, 10, 1000]),
        whole=st.sampled_from([True, True, False]),
    )
    def begin(self, path: str, key: str | None, timeout: float | None, whole: bool) -> Any:
        """Begin a call, with its message or without."""
        if self.stalled or self.connection.http2.open_outbound_streams >= STREAMS:
            return multiple()
        name = f"call-{len(self.begun)}"
        call = self.connection.begin(path, key, timeout, [("x-request-id", name)])
        call.name = name  # type: ignore[attr-defined]
        self.begun[name] = call
        self.sent[name] = []
        if whole and path != "/s/Talk" and not call.over:
            call.send(message(b"m"), end=True)
            self.settle()
        return call

    def may_send(self, call: MemoryRpcCall) -> bool:
        return not (call.over or call._ends or self.stalled) and call.stream in self.open_for_us()

    def open_for_us(self) -> set[int]:
        """Return the streams whose client's side is open."""
        return {
            stream
            for stream, state in self.connection.http2.streams.items()
            if state.state_machine.state.name in ("OPEN", "HALF_CLOSED_REMOTE")
        }

    @rule(call=calls, size=sizes, end=st.booleans())
    def send(self, call: MemoryRpcCall, size: int, end: bool) -> None:
        if self.may_send(call) and not call.unsent:
            call.send(message(b"m" * size), end)
            self.settle()

    @rule(call=calls, size=sizes, cut=st.integers(0, 100))
    def send_part(self, call: MemoryRpcCall, size: int, cut: int) -> None:
        """A call that gets only this never gets its message."""
        if self.may_send(call) and not call.unsent:
            call.send_data(framed(message(b"p" * size).SerializeToString())[: cut + 1])

    @rule(call=calls)
    def half_close(self, call: MemoryRpcCall) -> None:
        if self.may_send(call):
            call.half_close()
            self.settle()

    @rule(call=consumes(calls))
    def cancel(self, call: MemoryRpcCall) -> None:
        if not call.over and not self.stalled and call.stream in self.connection.http2.streams:
            call.unsent, call._ends = b"", False
            call.cancel()
            self.cancelled.add(call.name)  # type: ignore[attr-defined]

    @rule(index=st.integers(0, 20), size=sizes, ends=st.sampled_from(["answer", "fail", "stream", "stream"]))
    def serve(self, index: int, size: int, ends: str) -> None:
        """Let a method go on."""
        waiting = [each for each in self.rig.waiting if not each[2].called]
        if not waiting:
            return
        running, _, done = waiting[index % len(waiting)]
        name = running.request_id
        streams = running._head.path == b"/s/Stream"
        if ends == "fail":
            done.errback(unknown())
        elif not streams:
            self.sent[name].append(b"a" * size)
            done.callback(message(b"a" * size))
        elif ends == "answer":
            done.callback(None)
        else:
            for _ in range(2):
                self.sent[name].append(b"s" * size)
                running.send(message(b"s" * size))
        self.settle()

    @rule(
        index=st.integers(0, 20),
        size=sizes,
        does=st.sampled_from(["send", "send", "pause", "resume", "finish", "fail"]),
    )
    def talk(self, index: int, size: int, does: str) -> None:
        """Let a conversation go on."""
        if not self.rig.talks:
            return
        talk = self.rig.talks[index % len(self.rig.talks)]
        if does == "send":
            if not talk.call._over:  # type: ignore[attr-defined]
                self.sent[talk.call.request_id].append(b"t" * size)
            talk.call.send(message(b"t" * size))
        elif does == "pause":
            talk.call.pause_messages()
        elif does == "resume":
            talk.call.resume_messages()
        elif does == "finish":
            talk.call.finish()
        else:
            talk.call.fail(unknown())
        self.settle()

    @rule(reading=st.booleans())
    def stop_taking(self, reading: bool) -> None:
        """Let no window grow, or all."""
        self.connection.reading = reading
        if reading and not self.stalled:
            for call in self.begun.values():
                if not call.over and call.stream in self.connection.http2.streams:
                    call.read()
            self.settle()

    @rule()
    def stall(self) -> None:
        """Read nothing, or again."""
        if not self.connection.open:
            return
        self.stalled = not self.stalled
        if self.stalled:
            self.connection.stop_reading()
        else:
            self.connection.read_on()
            self.settle()

    @rule(seconds=st.sampled_from([0.5, 9.0, 20.0, 51.0]))
    def wait(self, seconds: float) -> None:
        self.settle(seconds)

    @invariant()
    def ends_once(self) -> None:
        ids = Counter(end.request_id for end in self.rig.ends)
        assert set(ids.values()) <= {1}
        assert set(ids) <= set(self.begun)

    @invariant()
    def client_sees_the_same_end(self) -> None:
        if self.stalled or not self.connection.open:
            return
        ends = {end.request_id: end for end in self.rig.ends}
        for name, call in self.begun.items():
            end = ends.get(name)
            if call.code is not None:
                assert end is not None
                assert (end.code, end.whole) == (call.code, True)
            elif call.reset is not None:
                assert end is not None
                assert not end.whole
            elif name in self.cancelled:
                assert end is not None
            else:
                assert end is None, (end, call.unread)
            if call.code == 0 and not name.startswith("x") and call.stream:
                expected = self.sent[name]
                assert [value[:1] for value in values(call)][: len(expected)] == [value[:1] for value in expected]

    @invariant()
    def memory_is_bounded(self) -> None:
        session = self.connection.protocol.session
        assert session.send_window >= 0
        assert len(self.connection.protocol.calls) <= STREAMS
        assert set(session.streams) == set(self.connection.protocol.calls)
        for call in self.connection.protocol.calls.values():
            assert call._out.size <= UNSENT
            assert len(call._in._held) <= WINDOW
            assert call._in.window <= MESSAGE + WINDOW
        assert self.connection.protocol.grants._used <= 2 * MESSAGE

    def teardown(self) -> None:
        if self.stalled and self.connection.open:
            self.stalled = False
            self.connection.read_on()
        self.connection.leave()
        assert {end.request_id for end in self.rig.ends} == set(self.begun)
        assert self.connection.protocol.grants._held == {}
        assert not self.rig.factory.connections
        # What is left fires nothing.
        for _, _, done in self.rig.waiting:
            if not done.called:
                done.callback(None)
        self.rig.clock.advance(10_000)


CallMachine.TestCase.settings = settings(CallMachine.TestCase.settings, stateful_step_count=40)
TestCalls = CallMachine.TestCase
