# SPDX-License-Identifier: Apache-2.0
"""
The protocol between the server and its worker and template processes.

Both sides import this package and nothing of each other.

- `messages`: messages between the server and a worker
- `control`: messages between the server and a template process, which forks workers
- `codec`: encode and decode messages as length-prefixed MessagePack frames
- `header_text`: header values in latin-1
- `metric_lines`: metrics as lines of a worker's stdout
- `held_back`: signals blocked while a process starts
"""
