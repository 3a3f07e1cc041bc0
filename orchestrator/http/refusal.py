"""A provider's refusal as a fault that names provider, zone and remedy.
In: the status and body of an answer that is not 200, and for whom it was asked. Out: SignalRefused or SignalOutage.
The HTTP session raises it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from orchestrator.http.faults import Reason, SignalOutage, SignalRefused


class Secret(str):
    """A key or token that shows as stars wherever its representation is printed."""

    within: tuple[str, ...] = ()
    """Further texts that give it away: the password in a header, the token behind `Bearer`."""

    def __repr__(self) -> str:
        return "'***'"

    @property
    def mark(self) -> str:
        """Eight digits that tell one key from another and give neither away."""
        return hashlib.blake2b(self.encode(), digest_size=4, person=b"lowtide").hexdigest()

    @classmethod
    def basic(cls, user: str, password: str) -> Secret:
        """The Authorization header of HTTP Basic (RFC 7617)."""
        code = base64.b64encode(f"{user}:{password}".encode()).decode()
        secret = cls(f"Basic {code}")
        secret.within = (code, str(password))
        return secret

    @classmethod
    def bearer(cls, token: str) -> Secret:
        """The Authorization header of a bearer token (RFC 6750)."""
        secret = cls(f"Bearer {token}")
        secret.within = (str(token),)
        return secret


def starred(text: str, secrets: Iterable[str]) -> str:
    """A text without the secrets, whole or in part."""
    for secret in secrets:
        for word in (str(secret), *getattr(secret, "within", ())):
            text = text.replace(word, "***") if word else text
    return text


@dataclass(frozen=True)
class Asker:
    """For whom a question is put, so that a fault can name provider, zone and key."""

    provider: str
    zone: str
    key: str | None = None
    """The environment variable that holds the key; never the key."""


_ERROR_NAMES = ("error", "message", "msg", "title", "detail", "errors")

Explain = Callable[[int, str], Reason | None]
"""From a refusal's status and text to its reason, where a provider means something of its own by them."""


def refusal(
    status: int,
    body: bytes,
    asker: Asker,
    secrets: Iterable[str] = (),
    asked_s: float | None = None,
    explain: Explain | None = None,
) -> SignalRefused | SignalOutage:
    """What an answer other than 200 means, in words that name the remedy and hold no secret.

    `asked_s` are the seconds of its Retry-After, `explain` the provider's own meaning of status and words.
    """
    fault = _refusal(status, body, asker, secrets, asked_s, explain)
    fault.status = status
    return fault


def _refusal(
    status: int,
    body: bytes,
    asker: Asker,
    secrets: Iterable[str],
    asked_s: float | None,
    explain: Explain | None,
) -> SignalRefused | SignalOutage:
    said = _said(body, secrets)
    told = f"{status}: {said}" if said else str(status)
    if status in {408, 425, 429} or (status >= 500 and status != 501):
        later = f"it asks to wait {asked_s:.0f} s" if asked_s else "try later"
        what = "asks for fewer questions" if status == 429 else "is out of order"
        return SignalOutage(asker.provider, asker.zone, f"the provider {what} ({told}); {later}", asked_s)
    usual: dict[int, Reason] = {401: "key", 403: "access", 404: "zone"}
    reason = (explain(status, said) if explain else None) or usual.get(status, "request")
    if reason == "access":
        return no_access(asker, told)
    where = f"in {asker.key} " if asker.key else ""
    texts: dict[Reason, str] = {
        "key": f"the key {where}is not accepted ({told}); "
        + ("put a valid one there" if asker.key else f"name its variable in providers.{asker.provider}.token_env"),
        "zone": f"the provider has nothing for it ({told}); check the zone's name, or give the provider's own "
        "with `as`",
        "coverage": f"the provider has nothing for that time ({told})",
        "request": f"the provider refuses the request ({told}); check base_url and the zone's name",
    }
    return SignalRefused(asker.provider, asker.zone, texts[reason], reason)


def no_access(asker: Asker, told: str) -> SignalRefused:
    """The fault of a key whose plan does not cover what it is asked for."""
    where = f"in {asker.key} " if asker.key else ""
    text = f"the key {where}has no access to this ({told}); ask for a plan that covers it, or give the zone another"
    return SignalRefused(asker.provider, asker.zone, f"{text} provider", "access")


def _said(body: bytes, secrets: Iterable[str]) -> str:
    """The provider's own words for a refusal, on one short line and without secrets."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "replace")
        document = "" if "<" in text[:200] else text  # a page for people helps nobody on one line
    if isinstance(document, dict):
        document = "; ".join(dict.fromkeys(word for name in _ERROR_NAMES for word in _words(document.get(name))))
    text = " ".join(str(document).split())
    return starred(text, secrets)[:200]


def _words(part: Any, deep: int = 4) -> Iterator[str]:
    """The words of an error: a text, an object with a message, a list of these, or such by the name of a field."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict) and (told := part.get("message") or part.get("msg")):
        field = ".".join(map(str, part["loc"])) if isinstance(part.get("loc"), list) else ""
        yield f"{field}: {told}" if field else str(told)
    elif isinstance(part, list | dict) and deep:
        for one in part.values() if isinstance(part, dict) else part:
            yield from _words(one, deep - 1)


def shown(url: str) -> str:
    """A URL fit for people: without user, password, query or fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
