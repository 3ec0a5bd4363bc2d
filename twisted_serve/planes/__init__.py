# SPDX-License-Identifier: Apache-2.0
"""
Implement the use cases of the server, independent of the transport.

``catalogue``     the registered versions, each with its pool of workers
``inference``     predictions, health and readiness
``job_headers``   the headers that a handler sees
``inputs``        bodies of requests as the inputs of a handler; ``multipart_lines``: those with bare LF line ends
``registrar``     register and unregister versions with their files and workers
``management``    register, describe, scale, unregister, set the default
``changes``       complete changes whose clients have left
``workflows``     the same for workflows, and their predictions
``describing``    the JSON description of a model version
``json_layout``   TorchServe's layout of JSON
``metadata``      that description with the handler's own metadata
``memory_usage``  the memory of worker processes
``startup``       the outcome of loading the start-up models
``snapshots``     a file for each change of the registered versions
``rotation``      replace a token
``keys``          manage keys with names; ``live_keys``: those of the server, and the file that has them
``senders``       the sender of a request with a named key: the models that the key opens
``access``        authorize the clients of all listeners
``request_ids``   the ids of requests
``overview``      the view of the server that plug-ins get
"""
