# SPDX-License-Identifier: Apache-2.0
"""
Base classes and tools for handlers, importable by TorchServe's ``ts.*`` names (``backend.ts.names``).

``base``          :class:`~twisted_serve.handlers.base.BaseHandler`
``vision``        base of ``image_classifier``, ``image_segmenter`` and ``object_detector``; ``image_transforms``
                  turns an image into a tensor
``text``          base of ``text_classifier``; ``text_utils`` and ``contractions`` tokenize and clean text
``weights``       device selection and loading of weights; ``exported`` and ``onnx_model`` load other formats
``compiling``     ``torch.compile`` and Intel's extension; ``profiling`` runs torch's profiler around a batch
``envelope``      request and response formats around a handler: ``body``; ``json`` and ``kserve`` in ``instances``,
                  ``kservev2`` in ``open_inference``
``context``       the ``context`` argument: request headers, response status and headers
``streaming``     intermediate responses (chunks)
``metrics``       ``context.metrics``; ``collected_metrics`` and ``host_metrics`` hold TorchServe's older metrics
``exceptions``    the exception that sets the status of a response
``rows``          reading of a request's input
``model_files``   labels, settings and classes of an archive
``micro_batching``  pipelined processing of a batch in slices
``async_service``  base class for handlers with ``async def handle``
``hf_streamer``   streaming of texts that Hugging Face transformers generate
``packages``, ``availability``, ``captum``  imports of optional packages
``timer``, ``deprecation``, ``class_imports``  the helpers ``timed``, ``deprecated`` and ``import_class``
``mock_context``  a context for unit tests of handlers

None of these imports torch or Twisted when it is imported, but ``hf_streamer`` needs transformers.
"""
