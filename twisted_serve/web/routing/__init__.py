# SPDX-License-Identifier: Apache-2.0
"""
Route requests to endpoints.

``klein_app``   Klein applications with exact routes
``fast_path``   the most frequent routes, dispatched without Klein
``tracing``     traces of predictions
``cors``        answers to CORS preflight requests
``browsers``    the redirect of browsers from ``/`` to ``/docs``
"""
