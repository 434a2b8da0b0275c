"""A server before a database: who asks it needs neither its password nor a route to it."""

import contextlib
import errno
import socket
import warnings

import optuna

from optnas.storage.opening import explained, open_storage
from optnas.storage.urls import StorageError, asked_url, hide_password


def serve(target: str, *, host: str, port: int) -> None:
    """Answer for a database as Optuna's storage proxy, until interrupted.

    Args:
        target: The database's URL.
        host: The address to listen on. Whoever can connect to it can read and change every study.
        port: The port.

    Raises:
        StorageError: If it is no database, or cannot be opened, or the address is taken.
    """
    url = asked_url(target)
    if url.startswith(("journal:", "grpc:")):
        raise StorageError(f"{hide_password(url)}: only databases can be served.")
    _check_free(host, port)
    with explained(url):
        storage = optuna.storages.get_storage(open_storage(url))
    print(f"serving {hide_password(url)}")
    print(f"storage: grpc://{host}:{port}", flush=True)
    with warnings.catch_warnings(), contextlib.suppress(KeyboardInterrupt):
        warnings.simplefilter("ignore")  # Optuna calls it experimental.
        with explained("grpc://"):
            optuna.storages.run_grpc_proxy_server(storage, host=host, port=port)


def _check_free(host: str, port: int) -> None:
    """Refuse an address that is taken, or not this machine's: gRPC would share it silently."""
    try:
        place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(place[0]) as asked:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asked.bind(place[4])
        with socket.socket(place[0]) as other:
            other.settimeout(1.0)
            if other.connect_ex(place[4]) == 0:
                raise OSError(errno.EADDRINUSE, "Address already in use")
    except OSError as error:
        raise StorageError(f"{host}:{port}: {error.strerror or error}") from None
