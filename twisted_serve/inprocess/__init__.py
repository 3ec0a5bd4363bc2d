# SPDX-License-Identifier: Apache-2.0
"""
Serve calls from the server's own process, without HTTP.

``predictions``  predictions, whole and streamed
"""
