"""The error tree of lowtide: who can mend it decides the class and the exit code.
In: nothing. Out: the classes that every wing raises.
The command line turns each into one line on stderr and an exit code.

    LowtideError
    ├── InputError        the user's file or argument is wrong          exit 2
    ├── Unavailable       something outside does not answer             exit 3
    │   ├── StaleEpoch    a newer controller holds the lease            exit 3
    │   └── Refused       it answers, and does not do what was asked    exit 3
    ├── Fenced            a later segment of the job has taken over     exit 3
    └── JobFault          the job failed by its own fault               exit 1
"""

from __future__ import annotations


class LowtideError(Exception):
    """Base of all errors that lowtide raises on purpose; its text is one clear line."""

    exit_code = 1


class InputError(LowtideError):
    """The user's input is wrong; the text names the field and the fix."""

    exit_code = 2


class Unavailable(LowtideError):
    """Something outside (Ray, the store, every provider) does not answer."""

    exit_code = 3


class StaleEpoch(Unavailable):
    """A command came from a controller whose lease has passed to another."""


class Refused(Unavailable):
    """What is outside answers, and refuses this one request: others may be granted."""


class Fenced(LowtideError):
    """A later segment has taken over the job's checkpoints: this one may publish no more, and ends."""

    exit_code = 3


class JobFault(LowtideError):
    """The job failed by its own fault: a Python exception, a NaN loss, out of memory."""

    exit_code = 1
