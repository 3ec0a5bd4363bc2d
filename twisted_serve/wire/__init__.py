# SPDX-License-Identifier: Apache-2.0
"""
The protocols between the server and its workers, templates and fronts.

Both sides import this package and nothing of each other.

- `messages`: messages between the server and a worker
- `control`: messages between the server and a template process, which forks workers
- `fronts`: messages between the server and a front, which reads and writes connections
- `codec`: encode and decode messages as length-prefixed MessagePack frames
- `large_values`: messages with large bodies, in pieces that are not copied
- `large_frames`: payloads of large frames, received in place
- `header_text`: header values in latin-1
- `metric_lines`: metrics as lines of a worker's stdout
- `held_back`: signals blocked while a process starts
"""
