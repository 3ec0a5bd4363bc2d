# SPDX-License-Identifier: Apache-2.0
"""
The models that are registered: values and decisions, without a socket, a timer or a file.

- `version`: one version of a model, and how it is run
- `settings`: how a version is to be run, weighed from all who have a say
- `snapshot`: which versions there are, as text that can be read back
- `registry`: which versions there are, and which of them is a model's default
"""
