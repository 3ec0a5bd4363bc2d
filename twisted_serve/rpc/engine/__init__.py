# SPDX-License-Identifier: Apache-2.0
"""
Speak gRPC over HTTP/2: connections, calls, flow control, limits.
"""
