# SPDX-License-Identifier: Apache-2.0
"""
Serve a handler's file while its author works on it.

- `project`: the files of a model that is not packed
- `watching`: decide which files have changed
- `reloading`: a server that loads the files again
- `announcing`: tell the author where the server is, and how to ask it
- `settings`: the server's settings, which no file has
- `command`: ``twisted-serve dev``
"""
