# SPDX-License-Identifier: Apache-2.0
"""
Describe the API.

``document``   OpenAPI documents of a listener or a model
``page``       the HTML page ``/docs``
"""
