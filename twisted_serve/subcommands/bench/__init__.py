# SPDX-License-Identifier: Apache-2.0
"""
Load a model for a few seconds, and measure how it answers.

- `answers`: find the answers in what a connection receives
- `latencies`: count latencies in bounded memory
- `pace`: decide when the next request is due
- `load`: send requests on several connections, and measure
- `report`: the figures, for people and as JSON
- `command`: ``twisted-serve bench``
"""
