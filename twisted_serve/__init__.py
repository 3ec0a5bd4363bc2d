# SPDX-License-Identifier: Apache-2.0
"""
A model server for PyTorch: TorchServe's successor, in Python on Twisted.

From the door inwards:

``cli``, ``tap``   the command, and the ``twistd`` plug-in
``service``        :class:`~twisted_serve.service.ModelServer`, what embedders use
``assembly``       puts it together from all that follows; ``measuring``: what is measured of it;
                 ``provisioning``: what each model gets of it; ``dependencies``: what it takes from outside
``archiver``       packs models: a command and a library beside the server
``web``            HTTP: listeners' routes, bodies, errors, the channel with its limits
``planes``         use cases, the same for every transport
``workers``        the server's side of worker processes
``models`` ``workflows`` ``archives`` ``batching`` ``config`` ``metrics``   values and decisions
``openinference``  the Open Inference Protocol's tensors, for any transport
``auth``           tokens: who may come in
``transports``     writing to sockets without delay; ``alarm``: timers that hardly ever go off; ``heap``: giving back
                   what is free
``wire``           what the server and a worker agree on
``backend`` ``handlers``   the worker's side, and what handler authors import
``testing``        public fakes, strategies and an in-memory server
"""

__version__ = "0.1.0"

#: The TorchServe release whose behaviour this server keeps.
COMPATIBLE_WITH = "0.12.0"
