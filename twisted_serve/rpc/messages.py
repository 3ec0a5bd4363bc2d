# SPDX-License-Identifier: Apache-2.0
"""
Name the classes of the messages.

``messages.pyi`` is for type checkers. Both protocols for inference with two names, the Open Inference Protocol and
reflection, have one set of messages for both names.
"""

from twisted_serve.rpc.descriptors import FILES, class_of

globals().update({name: class_of(message) for file in FILES for name, message in file.message_types_by_name.items()})
