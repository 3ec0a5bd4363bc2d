# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.auth.named.limits``.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.named.limits import Lease, Limit, Limited, Usage


def moves(least: int = 0) -> st.SearchStrategy[float]:
    """Return seconds by which a clock moves: multiples of 1/1024, which floats add exactly."""
    return st.one_of(st.integers(least, 4096), st.integers(least, 200 * 1024)).map(lambda n: n / 1024)


class RateTests(SynchronousTestCase):
    """Tests for the requests in a minute."""

    @given(st.integers(1, 200), st.lists(st.tuples(moves(), st.integers(1, 50)), max_size=40))
    def test_bound(self, rate: int, steps: list[tuple[float, int]]) -> None:
        """In no window there are more requests than its minutes pay for, and one minute's."""
        clock = Clock()
        usage = Usage(clock.seconds, rate)
        entered: list[Fraction] = []
        for wait, attempts in steps:
            clock.advance(wait)
            allowed = sum(isinstance(usage.enter(), Lease) for _ in range(attempts))
            entered += [Fraction(clock.seconds())] * allowed
        for first in range(0, len(entered), 7):
            for last in range(first, len(entered), 5):
                minutes = (entered[last] - entered[first]) / 60
                self.assertLessEqual(last - first + 1, rate * minutes + rate)

    @given(st.integers(1, 30), st.lists(moves(), max_size=80))
    def test_never_refused(self, rate: int, waits: list[float]) -> None:
        """A client which sends no more than the rate in any minute is never refused."""
        clock = Clock()
        usage = Usage(clock.seconds, rate)
        sent: deque[float] = deque(maxlen=rate)
        for wait in waits:
            clock.advance(wait)
            if len(sent) < rate or clock.seconds() - sent[0] >= 60:
                self.assertIsInstance(usage.enter(), Lease)
                sent.append(clock.seconds())

    @given(st.integers(1, 100_000), st.lists(moves(), max_size=10))
    def test_retry_after(self, rate: int, waits: list[float]) -> None:
        """After the seconds that a refusal names a request is allowed; they are never more than a minute."""
        clock = Clock()
        usage = Usage(clock.seconds, rate)
        usage._spent = rate * 60 * 10**9
        for wait in waits:
            clock.advance(wait)
            answer = usage.enter()
            if isinstance(answer, Limited):
                self.assertEqual((answer.limit, answer.allowed), (Limit.RATE, rate))
                self.assertTrue(1 <= answer.retry_after <= 60)
                clock.advance(answer.retry_after)
                self.assertIsInstance(usage.enter(), Lease)

    def test_example(self) -> None:
        """Sixty a minute: sixty at once, then one each second; refused ones count for nothing."""
        clock = Clock()
        usage = Usage(clock.seconds, 60)
        self.assertEqual([type(usage.enter()) for _ in range(70)], [Lease] * 60 + [Limited] * 10)
        self.assertEqual(usage.enter(), Limited(Limit.RATE, 60, 1))
        clock.advance(0.999)
        self.assertIsInstance(usage.enter(), Limited)
        clock.advance(0.001)
        self.assertEqual([type(usage.enter()) for _ in range(3)], [Lease, Limited, Limited])

    def test_no_drift(self) -> None:
        """Over six hours of small steps not one request is lost or won."""
        clock = Clock()
        usage = Usage(clock.seconds, 7)
        entered = 0
        for _ in range(21_600):
            clock.advance(1.0)
            entered += isinstance(usage.enter(), Lease)
        self.assertEqual(entered, 7 * 6 * 60 + 7 - 1)

    @given(st.lists(moves(-4096), max_size=30))
    def test_clock_goes_back(self, waits: list[float]) -> None:
        """A clock that stands or goes back forgets nothing, and one that goes on again holds nothing up."""
        clock = Clock()
        clock.rightNow = 10_000.0
        usage = Usage(clock.seconds, 10)
        forward = Fraction(0)
        entered = 0
        for wait in waits:
            clock.rightNow += wait
            forward += Fraction(max(0.0, wait))
            entered += sum(isinstance(usage.enter(), Lease) for _ in range(12))
            self.assertLessEqual(entered, 10 * forward / 60 + 10)
        clock.rightNow -= 1e9
        usage.enter()
        clock.rightNow += 6.0
        self.assertIsInstance(usage.enter(), Lease)


class ConcurrencyTests(SynchronousTestCase):
    """Tests for the requests at the same time."""

    def test_example(self) -> None:
        """Two at a time: a third is refused until one ends; one that was refused has not spent of the rate."""
        usage = Usage(Clock().seconds, 3, 2)
        leases = [usage.enter(), usage.enter()]
        self.assertEqual(usage.enter(), Limited(Limit.CONCURRENT, 2, 1))
        assert isinstance(leases[0], Lease)
        leases[0].leave()
        leases[0].leave()
        self.assertEqual(usage.in_flight, 1)
        self.assertIsInstance(usage.enter(), Lease)
        self.assertEqual(usage.enter(), Limited(Limit.CONCURRENT, 2, 1))

    def test_none_allowed(self) -> None:
        """A limit of none at a time refuses each request."""
        self.assertEqual(Usage(Clock().seconds, None, 0).enter(), Limited(Limit.CONCURRENT, 0, 1))

    def test_no_limit(self) -> None:
        """Without limits requests are only counted."""
        usage = Usage(Clock().seconds)
        leases = [usage.enter() for _ in range(1000)]
        self.assertEqual(usage.in_flight, 1000)
        for lease in leases:
            assert isinstance(lease, Lease)
            lease.leave()
        self.assertEqual(usage.in_flight, 0)


class ChangeTests(SynchronousTestCase):
    """Tests for limits that change."""

    def test_count_kept(self) -> None:
        """A change neither refills a minute's requests nor forgets those in flight."""
        clock = Clock()
        usage = Usage(clock.seconds, 10, None)
        self.assertEqual([type(usage.enter()) for _ in range(11)], [Lease] * 10 + [Limited])
        usage.change(12, None)
        self.assertEqual([type(usage.enter()) for _ in range(3)], [Lease, Lease, Limited])
        usage.change(12, 12)
        clock.advance(60)
        self.assertEqual(usage.enter(), Limited(Limit.CONCURRENT, 12, 1))

    def test_lower(self) -> None:
        """With a lower rate no wait is longer than this rate's minute."""
        clock = Clock()
        usage = Usage(clock.seconds, 1000)
        for _ in range(1000):
            usage.enter()
        usage.change(2, None)
        self.assertEqual(usage.enter(), Limited(Limit.RATE, 2, 30))
        clock.advance(30)
        self.assertIsInstance(usage.enter(), Lease)

    def test_no_rate_meanwhile(self) -> None:
        """To take the limit away and set it again forgives nothing that time has not paid for."""
        clock = Clock()
        usage = Usage(clock.seconds, 4)
        for _ in range(4):
            usage.enter()
        usage.change(None, None)
        self.assertIsInstance(usage.enter(), Lease)
        usage.change(4, None)
        self.assertEqual(usage.enter(), Limited(Limit.RATE, 4, 15))


class UsageMachine(RuleBasedStateMachine):
    """Whatever happens to a key's usage, its count is that of the leases which are held."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.rate: int | None = None
        self.concurrent: int | None = None
        self.usage = Usage(self.clock.seconds)
        self.held: list[Lease] = []
        self.left: list[Lease] = []
        # When requests were allowed since the last change.
        self.allowed: list[float] = []

    @rule(rate=st.none() | st.integers(1, 8), concurrent=st.none() | st.integers(0, 4))
    def change(self, rate: int | None, concurrent: int | None) -> None:
        """Change the limits."""
        self.usage.change(rate, concurrent)
        self.rate, self.concurrent = rate, concurrent
        self.allowed.clear()

    @rule(wait=moves(-4096))
    def pass_time(self, wait: float) -> None:
        """Move the clock, perhaps backwards."""
        self.clock.rightNow += wait
        if wait < 0:
            self.allowed.clear()

    @rule()
    def enter(self) -> None:
        """Enter, within both limits."""
        before = len(self.held)
        answer = self.usage.enter()
        if isinstance(answer, Limited):
            assert answer.retry_after >= 1
            if answer.limit is Limit.CONCURRENT:
                assert self.concurrent is not None
                assert before >= self.concurrent
            else:
                assert self.rate is not None
                assert answer.retry_after <= 60
            return
        assert self.concurrent is None or before < self.concurrent
        self.held.append(answer)
        self.allowed.append(self.clock.seconds())
        if self.rate is not None:
            minutes = Fraction(self.allowed[-1] - self.allowed[0]) / 60
            assert len(self.allowed) <= self.rate * minutes + self.rate

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """End a request."""
        lease = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        lease.leave()
        self.left.append(lease)

    @precondition(lambda self: self.left)
    @rule()
    def leave_again(self) -> None:
        """End a request once more."""
        self.left[-1].leave()

    @invariant()
    def balanced(self) -> None:
        """As many are in flight as leases are held."""
        assert self.usage.in_flight == len(self.held)


TestUsage = UsageMachine.TestCase
