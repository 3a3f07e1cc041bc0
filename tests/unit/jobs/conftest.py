"""A place for checkpoints outside the working folder, of each kind: a folder, a file URL, and S3 over HTTP.
In: nothing. Out: fixtures. The tests of bringing and mirroring take them.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3-compatible server on loopback."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'lowtide[s3]'")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'lowtide[test]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; its keys and endpoint are in the environment, as on a node."""
    import fsspec

    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"tide-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


@pytest.fixture(params=["folder", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder or URL, empty or not there yet."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/zone/job"
    path = tmp_path / "elsewhere" / "job"
    return str(path) if request.param == "folder" else path.as_uri()
