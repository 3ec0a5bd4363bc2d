# SPDX-License-Identifier: Apache-2.0
"""
Describe the API: OpenAPI documents (``document``), and the page ``/docs`` (``page``).
"""
