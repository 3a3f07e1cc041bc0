"""An S3-compatible server on loopback, for tests that send checkpoints over real HTTP.
In: nothing. Out: its endpoint, and an environment in which S3 clients find it.
The fixtures of unit and integration tests start it; they are skipped where it is not installed.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def running() -> Iterator[str]:
    """The endpoint of a server that lives as long as the block."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'lowtide[s3]'")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'lowtide[test]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    one = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    one.start()
    host, port = one.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        one.stop()


def environment(endpoint: str) -> dict[str, str]:
    """The variables by which a node's S3 clients find the server."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_MAX_ATTEMPTS": "1",
    }


def make_bucket() -> str:
    """The name of a new bucket; the environment must say where."""
    import fsspec

    name = f"tide-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return name
