# SPDX-License-Identifier: Apache-2.0
"""Find the endpoint of a request."""
