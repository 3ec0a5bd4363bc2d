# SPDX-License-Identifier: Apache-2.0
"""
Show the models of a server as they work: a table in the terminal.

- `exposition`: read Prometheus' text format
- `readings`: what a server says of its models at one moment
- `rows`: the difference of two readings, one row for each version
- `watching`: read a server again and again, with a bounded load
- `table`: the table, and the same as JSON
- `command`: ``twisted-serve top``
"""
