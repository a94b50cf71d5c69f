"""moto: an object server in memory that judges conditional writes as AWS does, in a thread of this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def moto() -> Iterator[str]:
    """The address of a running server."""
    from moto.server import ThreadedMotoServer

    # a line for each request says nothing; neither does the trace of a delete that met another: it answers 500
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
