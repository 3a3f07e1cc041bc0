"""A site for a test module, on an embedded Ray of its own that is gone when the module is through.
In: the module's settings. Out: a Lowtide, which is the command, the site and the store.
tests/integration/command.py says what it can be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.local import TOKEN_VARIABLE, _lives, _read
from tests.integration.command import Lowtide

Opening = Callable[..., Lowtide]


def processes_of(state: Path) -> list[psutil.Process]:
    """Every live process of the state folder's Ray: they inherit its token."""
    record = _read(state)
    found = []
    for process in psutil.process_iter():
        try:
            if record is not None and process.environ().get(TOKEN_VARIABLE) == record.token:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def lowtide_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opening]:
    """Opens a site; at the module's end `lowtide down` is held to leave no process of it."""
    opened: list[Lowtide] = []

    def open_site(env: Mapping[str, str] | None = None, **site: Any) -> Lowtide:
        opened.append(Lowtide(tmp_path_factory.mktemp("site"), env, **site))
        return opened[-1]

    yield open_site
    for lowtide in opened:
        own = processes_of(lowtide.state)
        lowtide.run("down")
        assert list(filter(_lives, own)) == []
        assert not (lowtide.state / "ray.json").exists()
        lowtide.store.close()
