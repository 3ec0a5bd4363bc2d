# SPDX-License-Identifier: Apache-2.0
"""
Decide which requests are sent to a worker together, and when.  Sans-IO, without timers.

- `queue`: the queue of a stateless model, and its batch policies
- `sequences`: the queue of a stateful model
- `cost`: estimate batch times and arrivals from recent ones
- `prefetch`: how many batches to prefetch to a worker
"""
