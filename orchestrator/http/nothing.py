"""What a reader gets where the provider answered 204: nothing, which is not an empty document.
In: nothing. Out: NO_CONTENT.
The session hands it on; readers of providers that answer so look for it.
"""

from __future__ import annotations

from enum import Enum


class NoContent(Enum):
    """What a reader gets where the provider answered 204: it has nothing, which is not an empty document."""

    NO_CONTENT = "no content"

    def __repr__(self) -> str:
        return "no content"


NO_CONTENT = NoContent.NO_CONTENT
