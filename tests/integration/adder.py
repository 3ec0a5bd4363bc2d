# SPDX-License-Identifier: Apache-2.0
"""The handler of a model with sequences that adds up the numbers of each."""

from __future__ import annotations

ADDER = """
class Adder:
    def initialize(self, context):
        self.sums = {}

    def handle(self, data, context):
        answers = []
        for i, row in enumerate(data):
            name = context.get_sequence_id(i)
            self.sums[name] = self.sums.get(name, 0) + int(bytes(row["data"]))
            answers.append(str(self.sums[name]))
        return answers
"""
