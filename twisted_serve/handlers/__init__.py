# SPDX-License-Identifier: Apache-2.0
"""
What handler authors import; user code reaches it by TorchServe's ``ts.*`` names (``backend.ts_names``).

``base``          :class:`~twisted_serve.handlers.base.BaseHandler`
``vision``        what ``image_classifier``, ``image_segmenter`` and ``object_detector`` share
``text``          what ``text_classifier`` and other handlers of texts share
``weights``       where a model goes, and how its weights come out of their file; beside it ``exported``,
                  ``onnx_model``, ``compiling`` and ``profiling``
``envelope``      forms of request and answer around a handler: ``body``; in ``instances`` ``json`` and ``kserve``,
                  in ``open_inference`` ``kservev2``
``context``       the server's side of a call: requests' headers, answers' status and headers
``streaming``     intermediate answers
``metrics``       ``context.metrics``
``exceptions``    the error a handler raises to choose its status
``rows``          what the built-in handlers take as a request's input
``model_files``   labels, settings and classes of an archive
``micro_batching``  a batch in pieces, its stages at the same time
``timer``         the ``timed`` decorator
``mock_context``  a context for handlers' own unit tests

None of these needs torch to be imported, and none imports Twisted.
"""
