# SPDX-License-Identifier: Apache-2.0
"""
Route requests to endpoints.

``klein_app``: Klein applications. ``fast_path``: the most frequent routes, past Klein. ``tracing``, ``cors``,
``browsers``: resources around the routes.
"""
