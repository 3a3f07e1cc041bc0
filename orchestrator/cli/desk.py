"""What a command needs on its desk: the site and its store, opened once.
In: the `--site` option. Out: a Desk; InputError or Unavailable where one of them is wrong.
Every command that touches jobs begins here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.site import Site, find_site
from orchestrator.store import Store


@dataclass(frozen=True)
class Desk:
    """The site and its store."""

    site: Site
    store: Store


@contextmanager
def desk(site_file: Path | None) -> Iterator[Desk]:
    """Open the site and its store; close the store at the end."""
    site = find_site(site_file, Path.cwd())
    store = Store(site.store_url)
    try:
        yield Desk(site, store)
    finally:
        store.close()


def print_json(document: Any) -> None:
    """JSON on stdout, and nothing else there."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
