"""WattTime v3: marginal or average emissions rates of balancing areas, in slots of 5 minutes, for registered users.
In: a region, a user and a password. Out: a Forecast of up to 72 hours, or measured points.
The HTTP session carries the questions; the chain of a zone's providers asks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jobs.spec import InputError, iso
from orchestrator.http.faults import Reason, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Asker, Explain, Secret
from orchestrator.signal.forecast import Forecast, Kind, Point, Signal, modal_gap_s, slots
from orchestrator.signal.login import Login
from orchestrator.signal.provider import Setup
from orchestrator.signal.reading import Reading, fresh_until
from orchestrator.signal.window import known, pieces

if TYPE_CHECKING:
    from orchestrator.http.session import Answer, Http

BASE_URL = "https://api.watttime.org"
G_PER_KWH = 0.45359237
"""One pound per MWh in g/kWh: a pound is 453.59237 g (International Yard and Pound Agreement, 1959)."""
UNITS = "lbs_co2_per_mwh"

SignalType = Literal["co2_moer", "co2_aoer"]

_TOKEN_LASTS = timedelta(minutes=29)
"""Of 30: a token is not to expire on its way."""
_SLOT_S = 300.0
_HORIZON_H, _USUAL_HORIZON_H = 72, 24
_RANGE = timedelta(days=30)
"""Of one question about the past: the service gives 32 days."""
_SHORT_FOR = timedelta(days=1)
"""How long a plan that refused the long horizon is taken to do so."""


class WattTime:
    """One account."""

    name = "watttime"
    factor: Literal["direct"] = "direct"
    """Operating emissions: what plants emit while they generate."""

    def __init__(
        self,
        http: Http,
        login: Login,
        base_url: str = BASE_URL,
        signal_type: SignalType = "co2_moer",
        limits: Limits | None = None,
    ):
        self._http = http
        self._login = login
        self._base = base_url.rstrip("/")
        self._signal_type: SignalType = signal_type
        self.signal: Signal = "marginal" if signal_type == "co2_moer" else "average"
        self._limits = limits or Limits()

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slot that holds `now` and those after it, in g/kWh: 72 hours, or 24 where the plan gives no more.

        Raises SignalRefused where the account does not cover the region, or does not exist.
        """
        answer = self._ahead(zone_name, now)
        told = answer.value
        return Forecast(
            zone=zone_name,
            provider=self.name,
            signal=self.signal,
            points=told.points,
            fetched_at=answer.fetched_at,
            issued_at=told.issued_at,
            factor=self.factor,
            note=told.warnings,
        )

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Points that begin in [start, end), in g/kWh; those that the service filled in itself are `estimated`."""
        reader, found = _Reader(Reading(self.name, zone_name), self._signal_type, "measured"), list[Point]()
        for begin, stop in pieces(start, end, _SLOT_S, _RANGE):
            last = stop - timedelta(seconds=_SLOT_S)  # the service's ends are inclusive
            window = {"start": iso(begin), "end": iso(last), "include_imputed_marker": "true"}
            found += self._ask("historical", window, zone_name, reader.read, _explain).value.points
        return known(found, start, end)

    def _ahead(self, zone_name: str, now: datetime) -> Answer[_Told]:
        """The longest forecast that the account gets; what it refuses is remembered for a day, by all processes."""

        def asked(hours: int, explain: Explain) -> Answer[_Told]:
            return self._ask("forecast", {"horizon_hours": str(hours)}, zone_name, read, explain)

        def read(document: Any) -> _Told:
            told = _Reader(reading, self._signal_type, "forecast").read(document)
            return told._replace(points=reading.ahead(told.points, now))

        reading = Reading(self.name, zone_name)
        note = f"{self.name} {self._base} {self._login.keys} {zone_name} {self._signal_type} horizon"
        if self._http.notes.find(note, self._http.now()) is not None:
            return asked(_USUAL_HORIZON_H, _explain)
        try:
            return asked(_HORIZON_H, _explain_long)
        except SignalRefused as refused:
            if refused.reason != "coverage":
                raise
        answer = asked(_USUAL_HORIZON_H, _explain)
        self._http.notes.put(note, {"hours": _USUAL_HORIZON_H}, self._http.now(), self._http.now() + _SHORT_FOR)
        return answer

    def _ask(
        self, what: str, more: Mapping[str, str], zone_name: str, read: Callable[[Any], _Told], explain: Explain
    ) -> Answer[_Told]:
        """A question with the login's token; where that has expired, once more with another."""
        asker = Asker(self.name, zone_name, self._login.keys)
        tokens: list[Secret | None] = []

        def secrets() -> dict[str, Secret]:
            tokens.append(None)
            tokens[-1] = token = self._login.token(asker)
            return {"Authorization": token}

        def asked(explain: Explain) -> Answer[_Told]:
            return self._http.get(
                f"{self._base}/v3/{what}",
                {"region": zone_name, "signal_type": self._signal_type, **more},
                lambda document: ((told := read(document)), fresh_until(self._http.now(), told.slot_s)),
                asker,
                secrets=secrets,
                limits=self._limits,
                explain=explain,
            )

        try:
            return asked(lambda status, said: _expired(status, said) or explain(status, said))
        except SignalRefused as refused:
            if refused.reason != "key" or tokens[-1:] == [None]:  # no token: it is the login that was refused
                raise
        for token in filter(None, tokens):
            self._login.drop(token)
        return asked(explain)


def make(setup: Setup) -> WattTime:
    """The provider of one zone; all zones share one login. InputError where user or password are not named."""
    base_url, settings = setup.base_url(BASE_URL).removesuffix("/v3"), setup.settings
    for key, what in (("user_env", "user name"), ("password_env", "password")):
        if getattr(settings, key) is None:
            raise InputError(f"{setup.field}.{key}: is missing; name the environment variable that holds your {what}")
    user, password = setup.secret("user_env") or Secret(), setup.secret("password_env") or Secret()
    keys = f"{settings.user_env} and {settings.password_env}"
    login = setup.once(
        (setup.name, base_url, user),
        lambda: Login(setup.http(), f"{base_url}/login", user, password, keys, _TOKEN_LASTS, setup.limits),
    )
    return WattTime(setup.http(), login, base_url, settings.signal_type, setup.limits)


def _expired(status: int, said: str) -> Reason | None:
    """A token that has expired is 401, or a page of 403 without a word; a plan's limit says so."""
    return "key" if status == 401 or (status == 403 and not _names_plan(said)) else None


def _explain(status: int, said: str) -> Reason | None:
    """A region that is none and a plan without it share their statuses; only the words tell."""
    if status not in {400, 403, 404, 422}:
        return None
    if _names_plan(said):
        return "access"
    return "zone" if "region" in said.lower() else None


def _explain_long(status: int, said: str) -> Reason | None:
    """As `_explain`, and "coverage" where the long horizon may be what is refused."""
    if status in {400, 403, 422} and "horizon" in said.lower():
        return "coverage"
    return _explain(status, said) or ("coverage" if status in {400, 422} else None)


def _names_plan(said: str) -> bool:
    return "scope" in said.lower() or "access" in said.lower()


class _Told(NamedTuple):
    """One answer in g/kWh."""

    points: tuple[Point, ...]
    slot_s: float
    issued_at: datetime | None
    warnings: str | None


@dataclass(frozen=True)
class _Reader:
    """Reads one answer, a forecast's or that of the past; SignalGarbled on what is none."""

    reading: Reading
    signal_type: SignalType
    kind: Kind

    def read(self, document: Any) -> _Told:
        """The points of the region and signal that were asked for, and what the answer says of itself."""
        document = self.reading.mapping(document)
        meta, rows = self.reading.mapping(document.get("meta")), self.reading.rows(document.get("data"), "data")
        for name, asked in (("region", self.reading.zone), ("signal_type", self.signal_type), ("units", UNITS)):
            if meta.get(name) != asked:
                told = repr(str(meta.get(name))[:40])
                raise self.reading.garbled(
                    f"answered with {name} {told}, not {asked}; check the zone's name and the plan"
                )
        starts = self.reading.times(self.reading.column(rows, "point_time"))
        values = self.reading.intensities(self.reading.column(rows, "value"), starts, g_per_kwh=G_PER_KWH)
        kinds: list[Kind] = ["estimated" if row.get("imputed_data_used") is True else self.kind for row in rows]
        period_s = meta.get("data_point_period_seconds")
        slot_s = float(period_s) if type(period_s) is int and 0 < period_s <= 86400 else modal_gap_s(starts) or _SLOT_S
        made = meta.get("generated_at")
        return _Told(
            points=slots(starts, values, slot_s, kinds),
            slot_s=slot_s,
            issued_at=self.reading.time(made) if made is not None and self.kind == "forecast" else None,
            warnings=_warnings(meta.get("warnings")),
        )


def _warnings(told: Any) -> str | None:
    """The service's warnings of an answer on one line."""
    found = [str(one.get("message") or one.get("type")) for one in told or () if isinstance(one, dict)]
    return " ".join("; ".join(found).split())[:200] or None
