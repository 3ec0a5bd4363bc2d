# SPDX-License-Identifier: Apache-2.0
"""
Extend Twisted's reactor where it is not enough.

``timeout``: a timer that is set and cleared for each request. ``writing``: write without waiting for the next turn.
``vectors``: likewise, in pieces that are not joined. ``threads``: blocking calls in threads, which a caller can stop
waiting for. ``monotonic``: a clock that is never set. ``descriptors``: pass descriptors to another process.
``polling``: events without a log context for each. ``turn_end``: one call for all events of a turn. ``turns``: log
turns of the reactor that take too much processor time.
"""
