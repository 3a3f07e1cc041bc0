"""Whether a worker runs this installation's code, and not a user's own folder of the same name.
In: the modules that Python found on the worker. Out: nothing, or an ImportError that names both places.
The segment sends `check` to each worker by value, before anything of `cluster` or `jobs` is imported there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def guarded(module: str, function: str) -> Callable[[dict[str, Any]], Any]:
    """A training function for Ray that checks the installation, then calls `module.function(**config)`.

    It names the function rather than holding it, so that nothing is imported before the check.
    """

    def checked(config: dict[str, Any]) -> Any:
        import importlib

        check()
        return getattr(importlib.import_module(module), function)(**config)

    return checked


def check() -> None:
    """Raise ImportError where `cluster` or `jobs` is not what the distribution `lowtide` on this host installed.

    It stands on its own, with its imports inside, because a shadowed `cluster` could not even be asked.
    """
    import importlib
    import importlib.metadata
    import json
    from pathlib import Path
    from urllib.parse import unquote, urlparse

    try:
        distribution = importlib.metadata.distribution("lowtide")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("lowtide is not installed on this worker's host; install it in Ray's environment") from None
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        home = Path(unquote(urlparse(origin["url"]).path)).resolve()
    else:
        home = Path(str(distribution.locate_file(""))).resolve()
    for name in ("cluster", "jobs"):
        module = importlib.import_module(name)
        found = Path(next(iter(module.__path__))).resolve()
        if found != home / name:
            raise ImportError(
                f"the module {name!r} comes from {found} and not from lowtide's installation in {home}: "
                "rename that folder, or take it off PYTHONPATH"
            )
