# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.metrics.torchserve.lines`."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.metrics import Dimension, MetricsCacheYamlImpl, MetricTypes
from twisted_serve.metrics.torchserve.lines import (
    Series,
    decimal,
    lines_of_readings,
    lines_of_values,
    parse_line,
    split_labels,
)
from twisted_serve.wire.messages import Reading
from twisted_serve.wire.metric_lines import METRIC_MARK

NAMES = st.text("abcXYZ_ 09", min_size=1, max_size=8)
# What a label can be is what a line can carry: no end of one, and no comma before something that looks like a label.
VALUES = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"), blacklist_characters=",|"), max_size=8)

NUMBERS = st.integers(0, 3) | st.sampled_from([0.0, -0.0, 1.0]) | st.floats()


class ParseTests(SynchronousTestCase):
    """Tests for `parse_line`."""

    def test_line(self) -> None:
        """A line of the predecessor, as Python and as C++ write it."""
        line = "[METRICS]HandlerTime.Milliseconds:12.5|#ModelName:m,Level:Model|#type:GAUGE|#hostname:h,1717098363,a,b"
        expected = Reading(
            "HandlerTime", "Milliseconds", 12.5, "ModelName:m,Level:Model", "GAUGE", "h", 1717098363, "a,b"
        )
        self.assertEqual(parse_line(line), expected)
        self.assertEqual(parse_line(f"INFO > {line}"), expected)

    def test_no_request(self) -> None:
        """A metric which belongs to no request, with no label."""
        reading = parse_line("[METRICS]e.unit:1|#|#type:COUNTER|#hostname:h,5")
        self.assertEqual((reading.labels, reading.request_ids, split_labels(reading.labels)), ("", "", ()))

    def test_broken(self) -> None:
        """What is no metric is refused, whatever is wrong with it."""
        good = "[METRICS]n.u:1|#a:b|#type:GAUGE|#hostname:h,5"
        parse_line(good)
        for line in [
            "",
            METRIC_MARK,
            good[1:],
            good.replace("n.u", "nu"),
            good.replace("n.u", "n-x.u"),
            good.replace(":1|", ":|"),
            good.replace(":1|", ":1 000|"),
            good.replace(":1|", ":1_000|"),
            good.replace(":1|", ":0x1|"),
            good.replace(":1|", f":{'1' * 70}|"),
            good.replace("GAUGE", "TIMER"),
            good.replace(",5", ""),
            good.replace(",5", ",now"),
            good.replace(",5", f",{'5' * 30}"),
            good + "\n" + good,
        ]:
            self.assertRaises(ValueError, parse_line, line)

    @given(st.text() | st.text("[METRICS]n.u:1|#ab,typeGAUGEhos ").map(lambda text: f"{METRIC_MARK}{text}"))
    def test_anything(self, line: str) -> None:
        """Whatever a handler prints is a metric or refused."""
        try:
            reading = parse_line(line)
        except ValueError:
            return
        self.assertTrue(reading.name)

    @given(
        NAMES,
        st.floats() | st.integers(-(10**20), 10**20),
        st.lists(st.tuples(NAMES, VALUES), max_size=3),
        st.sampled_from(MetricTypes),
        st.lists(st.uuids().map(str), max_size=3),
    )
    def test_round_trip(
        self, name: str, value: float, labels: list[tuple[str, str]], kind: MetricTypes, ids: list[str]
    ) -> None:
        """What a handler emits is what is read, to the last digit."""
        written: list[str] = []
        cache = MetricsCacheYamlImpl("m", write=written.append, epoch=lambda: 1717098363.9)
        metric = cache.add_metric_to_cache(name, "ms", metric_type=kind)
        metric.update(value, ",".join(ids), [Dimension(*label) for label in labels])
        if kind is MetricTypes.COUNTER and value < 0:
            self.assertEqual(written, [])
            return
        reading = parse_line(written[0].rstrip("\n"))
        self.assertEqual((reading.name, reading.unit, reading.kind), (name, "Milliseconds", kind.name))
        self.assertEqual((reading.time, reading.request_ids), (1717098363, ",".join(ids)))
        self.assertTrue(reading.value == float(value) or math.isnan(value))
        self.assertEqual(split_labels(reading.labels), tuple(labels))


class LabelTests(SynchronousTestCase):
    """Tests for `split_labels`."""

    def test_odd_values(self) -> None:
        """A value may have colons and commas; what belongs to no label is dropped."""
        self.assertEqual(split_labels("a:b:c,d:e,f"), (("a", "b:c"), ("d", "e,f")))
        self.assertEqual(split_labels("x,a:,b:c"), (("a", ""), ("b", "c")))


class DecimalTests(SynchronousTestCase):
    """Tests for `decimal`."""

    def test_as_java(self) -> None:
        """Numbers look as Java's do."""
        for value, shown in [
            (1, "1.0"),
            (0, "0.0"),
            (-0.0, "-0.0"),
            (83.13, "83.13"),
            (1e7, "1.0E7"),
            (12345678.5, "1.23456785E7"),
            (9999999.0, "9999999.0"),
            (0.001, "0.001"),
            (0.0005, "5.0E-4"),
            (-2.5e-10, "-2.5E-10"),
            (1e23, "1.0E23"),
            (math.inf, "Infinity"),
            (-math.inf, "-Infinity"),
            (math.nan, "NaN"),
        ]:
            self.assertEqual(decimal(value), shown)

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_reads_back(self, value: float) -> None:
        """No digit is lost, and there is always a decimal part."""
        self.assertEqual(float(decimal(value)), value)
        self.assertRegex(decimal(value), r"\A-?\d+\.\d+(E-?\d+)?\Z")

    def test_parts(self) -> None:
        """What stands around the value in the log; it forges no line."""
        series = Series("N", "ms", [("a", "1"), ("b", "2\n")], "h")
        self.assertEqual((series.before, series.after), ("N.ms:", "|#a:1,b:2\\n|#hostname:h,"))

    @given(st.lists(st.tuples(st.integers(0, 1), NUMBERS), max_size=20), st.integers(0, 10**10))
    def test_many(self, said: list[tuple[int, float]], second: int) -> None:
        """The lines of many values are the line of each, whichever of them are equal; all their texts are there."""
        two = [Series("QueueTime", "ms", [("Level", f"Host{number}")], "h") for number in range(2)]
        lines = lines_of_values([(two[number], value) for number, value in said], second)
        self.assertEqual(
            lines,
            [
                f"QueueTime.ms:{decimal(value)}|#Level:Host{number}|#hostname:h,timestamp:{second}"
                for number, value in said
            ],
        )
        self.assertEqual(set(lines.texts), {text for n, _ in said for text in (two[n].before, two[n].after)})

    def test_readings(self) -> None:
        """The ids of a handler's metric are among the texts in which keys are searched for, and forge no line."""
        reading = Reading("N", "ms", 1.5, "a:1", "GAUGE", "h", 7, "r1,r\n2")
        lines = lines_of_readings([(Series("N", "ms", [("a", "1")], "h"), reading)], 0)
        self.assertEqual(lines, ["N.ms:1.5|#a:1|#hostname:h,requestID:r1,r\\n2,timestamp:7"])
        self.assertEqual(list(lines.texts), ["N.ms:", "|#a:1|#hostname:h,", "r1,r\n2"])
