# SPDX-License-Identifier: Apache-2.0
"""
Route requests to endpoints.

``klein_app``   Klein applications with exact routes
``binding``     the rules and the fast path of the routes in ``web.api``
``fast_path``   the most frequent routes, dispatched without Klein
``tracing``     traces of predictions
``asking``      the routes of a listener behind an application's authorizer
``cors``        answers to CORS preflight requests
``mounting``    a listener's API as a resource of another site
``leaf``        the base class of the resources around the routes
``browsers``    the redirect of browsers from ``/`` to ``/docs``
"""
