# SPDX-License-Identifier: Apache-2.0
"""
The worker process: ``python -m twisted_serve.backend --fd N``.

``__main__``  entry point: set up the process, then serve
``process``   process-wide settings: signals, logging, import path, end with the parent
``channel``   messages over the inherited socket
``sending``   data in several pieces, which are not joined
``session``   protocol with the server: load the model, answer batches, stop at end of file
``concurrent``  the same for an asynchronous handler; ``pacing`` pauses one while its client is not reading
``service``   a loaded model version; ``call`` is one call of its handler
``loader``    handler name to entry point
``envelopes`` service envelope around the entry point
``encoding``  request parts to values, results to bytes
``items``     validated status, headers and body of one response
``metric_buffer``  metrics buffered for the response to a batch
``faults``    exceptions as text, status codes and log entries
``installation``  another process: pip, for one model
``ts``        TorchServe's names for handlers
``template``  the worker's other origin: forked from a template process, a zygote
              (``docs/designs/worker-template.md``)

These modules import neither Twisted nor the server, but for ``wire`` and the process helpers in ``system``.
"""
