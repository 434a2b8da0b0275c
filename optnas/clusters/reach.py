"""Whether workers on other machines can reach a study's storage and artifacts."""

import ipaddress
import os
from pathlib import Path

import psutil
from sqlalchemy.engine import make_url

from optnas.config.paths import split_bucket
from optnas.errors import UserError
from optnas.storage.file_systems import NETWORK, STALE, file_system
from optnas.storage.urls import hide_password, parse_url, storage_file

SERVER = (
    "use a database server (postgresql+psycopg://USER@HOST/NAME), or `optnas storage serve` "
    "before it and grpc://HOST:PORT"
)
BUCKET = "name a bucket (s3://BUCKET/PREFIX, gs://BUCKET/PREFIX) or a folder that all nodes mount"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Environment variables that name a server which speaks S3."""


def check_reach(storage: str, artifacts: str, node: str) -> None:
    """Refuse a storage or artifacts that a node other than this machine cannot reach.

    Only what can be told without asking the node: it may still lack rights or a route.

    Args:
        storage: The storage's URL.
        artifacts: The folder, or the bucket's URL.
        node: The name of such a node, for the message.

    Raises:
        UserError: With what would do.
    """
    file = storage_file(storage)
    if file is not None:
        is_journal = storage.startswith("journal:")
        kind = file_system(file)
        if not (is_journal and kind in NETWORK - STALE):
            raise UserError(
                f"storage: the node {node} cannot reach the file {file}, which is on this "
                f"machine; {SERVER}"
            )
    elif is_loopback(parse_url(storage).host):
        raise UserError(
            f"storage: {hide_password(storage)} is another machine on each node ({node}, say); "
            "name the server's host as the nodes know it"
        )
    _check_artifacts(artifacts, node)


def check_password(storage: str) -> None:
    """Refuse a password in a URL, which the cluster would keep.

    Raises:
        UserError: With what to do.
    """
    if storage_file(storage) is None and hide_password(storage) != _written(storage):
        raise UserError(
            "storage: the URL holds a password, which the cluster would store and show; leave it "
            "out, and give nodes a PGPASSFILE, or let `optnas storage serve` alone know it"
        )


def _written(url: str) -> str:
    return make_url(url).render_as_string(hide_password=False)


def _check_artifacts(artifacts: str, node: str) -> None:
    bucket = split_bucket(artifacts)
    if bucket is None:
        if file_system(Path(artifacts)) not in NETWORK:
            raise UserError(
                f"artifacts: the node {node} cannot reach the folder {artifacts}, which is on "
                f"this machine; {BUCKET}"
            )
        return
    endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), None)
    if bucket[0] == "s3" and endpoint is not None and is_loopback(make_url(endpoint).host):
        raise UserError(
            f"artifacts: {endpoint} is another machine on each node ({node}, say); name the "
            "server's host as the nodes know it"
        )


def is_loopback(host: str | None) -> bool:
    """Whether a host is whatever machine it is named on; also without a host, a socket's file."""
    if not host or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def own_addresses() -> set[str]:
    """The addresses of this machine's network interfaces."""
    return {address.address for each in psutil.net_if_addrs().values() for address in each}
