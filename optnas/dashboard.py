"""optuna-dashboard on a study's storage, for this machine only."""

import contextlib
import signal
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna_dashboard import wsgi

from optnas.errors import UserError

# It has no login: never another address.
HOST = "127.0.0.1"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass  # A page that is open asks every few seconds.


def serve(study: optuna.Study, port: int) -> None:
    """Serve the dashboard until Ctrl-C or SIGTERM.

    Args:
        study: The study whose page is named on stdout; its storage is served whole.
        port: Port on this machine.

    Raises:
        UserError: If the port cannot be had.
    """
    try:
        server = make_server(HOST, port, wsgi(study._storage), _Server, _Handler)
    except OSError as error:
        raise UserError(f"port {port}: {error.strerror}; name another with --port") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    page = f"http://{HOST}:{port}/dashboard/studies/{study._study_id}"
    print(f"{page}  (Ctrl-C ends)", flush=True)
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
