"""A place for checkpoints outside the working folder, of each kind: a folder, a file URL, and S3 over HTTP.
In: nothing. Out: fixtures. The tests of bringing and mirroring take them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3-compatible server."""
    with s3.running() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; its keys and endpoint are in the environment, as on a node."""
    for name, value in s3.environment(s3_server).items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.make_bucket()}"


@pytest.fixture(params=["folder", "file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder or URL, empty or not there yet."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/zone/job"
    path = tmp_path / "elsewhere" / "job"
    return str(path) if request.param == "folder" else path.as_uri()
