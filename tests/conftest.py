"""What holds for every test: a property is held for what it says, never for how long an example takes.
In: hypothesis' settings. Out: a profile without deadlines, for a busy machine makes any example slow.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("lowtide", deadline=None)
settings.load_profile("lowtide")
