"""Whether a script ended because a disk takes no more: full, or its quota reached.
In: the line that says why it ended (jobs.script.child.cause). Out: yes or no.
jobs.script.run makes it something outside that was unavailable, and no fault of the script.
"""

from __future__ import annotations

import re

_FULL = re.compile(r"\[Errno (?:28|122)\]|code: (?:28|122),|No space left on device|Disk quota exceeded")
"""ENOSPC and EDQUOT, as Python says them, and Rust below safetensors and tokenizers."""
_TORCH_SAYS = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos|write\(\): fd")


def wants_room(said: str, saves: bool) -> bool:
    """Whether `said` is of a full disk; torch has words of its own, which mean one only where the script `saves`."""
    return bool(_FULL.search(said) or (saves and _TORCH_SAYS.search(said)))
