# SPDX-License-Identifier: Apache-2.0
"""
The worker process: ``python -m twisted_serve.backend --fd N``.

``__main__``  the entry: makes the process what a worker is, then serves
``process``   what is set once in the process: signals, logging, import path
``channel``   messages over the inherited socket
``session``   the conversation with the server, from loading to the socket's end
``service``   one batch through the handler
``loader``    the handler's name to its entry point
``envelopes`` the envelope around it
``encoding``  a request's parts to values, results to bytes
``items``     what an answer's head may be
``faults``    exceptions as text and codes
``installation``  another process: pip, for one model
``ts_names``  TorchServe's module names

A worker may come from a template instead (``docs/designs/worker-template.md``):

``base_template``  the entry of the first template: imports what workers need, forks
``template``       forking, reaping and signalling on request
``divisible``      a worker that becomes a template once it has loaded
``sharing``        whether that is safe, and what each fork does for itself

No Twisted here, and nothing of the server: both sides share only ``wire``.
"""
