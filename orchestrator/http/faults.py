"""What a provider can do wrong, told apart by what mends it.
In: nothing. Out: SignalFault and its three kinds, each one line with provider, zone and remedy.
The HTTP session and the providers raise them; the chain of a zone's providers decides on them.

    SignalFault               exit 3
    ├── SignalRefused         waiting does not mend it: key, plan, zone name, request
    ├── SignalOutage          waiting may mend it: no connection, timeout, 429, 5xx
    └── SignalGarbled         an answer came, and it is not what the provider promises
"""

from __future__ import annotations

from typing import Literal

from jobs.spec import Unavailable

Reason = Literal["key", "access", "zone", "coverage", "request", "outage", "garbled"]


class SignalFault(Unavailable):
    """A provider gave no usable answer for a zone."""

    def __init__(self, provider: str, zone: str, text: str, reason: Reason, retry_after_s: float | None = None):
        super().__init__(f"{provider}: zone {zone}: {text}")
        self.provider = provider
        self.zone = zone
        self.reason = reason
        self.retry_after_s = retry_after_s
        """Seconds that the provider asked to be left alone; None where it did not say."""
        self.status: int | None = None
        """Of the HTTP answer that said so; None where none did."""


class SignalRefused(SignalFault):
    """The provider will go on refusing until somebody changes key, plan, zone name or request."""


class SignalOutage(SignalFault):
    """The provider does not answer now."""

    def __init__(self, provider: str, zone: str, text: str, retry_after_s: float | None = None):
        super().__init__(provider, zone, text, "outage", retry_after_s)


class SignalGarbled(SignalFault):
    """The provider's answer cannot be trusted: not JSON, another zone, a value that is no intensity."""

    def __init__(self, provider: str, zone: str, text: str):
        super().__init__(provider, zone, text, "garbled")
