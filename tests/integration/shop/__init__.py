# SPDX-License-Identifier: Apache-2.0
"""An application with two servers, as a reader of the documentation would write it, and its own tests for trial."""
