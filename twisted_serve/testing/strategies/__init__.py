# SPDX-License-Identifier: Apache-2.0
"""
Hypothesis strategies for the server's values, one module for each package.
"""
