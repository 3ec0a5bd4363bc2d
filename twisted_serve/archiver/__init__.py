# SPDX-License-Identifier: Apache-2.0
"""
The archiver: files of a model become an archive, the same bytes each time.

- `config`: what to pack, and how
- `handlers`: what a handler's name means, and which file it is
- `contents`: which files go in, and under which names
- `checks`: what is found before anybody tries to serve it
- `forms`: the physical forms, each written reproducibly
- `packing`: all of it, from the config to the published archive
- `command`: ``twisted-serve-archiver``
- `model_archiver`: the names of the predecessor's package ``model_archiver``
"""
