"""A trained model as a server: a page for the browser, recordings by HTTP, live speech by WebSocket. Extra ``serve``.

``app``             everything put together: an ASGI application
``server``          that application on a socket
``transcriptions``  ``POST /v1/audio/transcriptions``
``streams``         the WebSocket ``/v1/audio/stream``
``batching``        recordings that wait are computed together, off the event loop
``searches``        the language model's weight and hotwords of each request
``fields``          what requests may say, and its checks
``uploads``         bodies within their limits, recordings from anonymous files
``guard``           who may ask: hosts, origins, the key
``limits``          how much may be asked
``refusal``         errors as JSON
``metrics``         ``/metrics``, in Prometheus' text form
``results``         transcripts in the forms of answers
``description``     OpenAPI; ``site`` makes ``/docs`` of it and serves the page in ``page/``
"""

from asrkern._optional import needs

# Before the modules below import its packages: then the message says what to install.
needs("serve")
