# SPDX-License-Identifier: Apache-2.0
"""
Which requests go to a worker together, and when: ``queue``, decisions only; it owns no timer.
"""
