"""The site file: the zones, providers and limits of one cluster, as its keepers wrote them.
In: lowtide.yaml, found upward from the working directory, or nothing. Out: a Site with absolute paths.
Signals, the controller and the report read it; without a file lowtide runs embedded on the demo grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, PrivateAttr, model_validator

from jobs.spec import DurationS, InputError, JobSpec, Section, parse, read_mapping
from orchestrator.accounting.pue import Pue, PueSeries, checked, read_pue

FILE_NAME = "lowtide.yaml"
EMBEDDED_ZONE = "DEMO"
"""The one zone of a site without a file; its grid is generated and says so."""


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _is_granularity(slot_s: float) -> float:
    if slot_s not in {300.0, 900.0, 3600.0}:
        raise ValueError(f"{slot_s:g} s is no slot that a provider offers; choose from 5m, 15m and 60m")
    return slot_s


class ZoneSite(Section):
    """One grid region: who tells its intensity, and what the site has there."""

    provider: Annotated[list[str], BeforeValidator(_one_or_more)] = []
    plan_by: Annotated[list[str], BeforeValidator(_one_or_more)] = []
    charge_by: Annotated[list[str], BeforeValidator(_one_or_more)] = []
    mix: bool = Field(default=False, description="whether one chain may mix average and marginal intensities")
    as_name: str | dict[str, str] | None = Field(
        default=None, alias="as", description="the provider's own name for the zone, or such a name by provider"
    )
    file: str | None = Field(
        default=None,
        description="for provider csv: a file, a folder with <as or zone>.csv, or an http(s) address",
    )
    pue_given: Annotated[float | str, PlainValidator(checked)] = Field(
        default=1.0, alias="pue", description="a number, or a CSV with start_utc,pue: each value holds to the next"
    )
    embodied_g_per_gpu_hour: float | None = Field(default=None, ge=0)
    gpus: int | None = Field(default=None, ge=0, description="declared capacity; a job that could never fit is refused")
    wue_l_per_kwh: float | None = Field(default=None, ge=0, description="litres of water at the site by kWh computed")
    node_overhead_w: float | None = Field(
        default=None, ge=0, description="what a node draws beside the metered devices: fans, network, disks"
    )
    transfer_j_per_byte: float | None = Field(default=None, ge=0, description="of checkpoints that leave the zone")
    bandwidth_mb_per_s: float | None = Field(default=None, gt=0, description="at which checkpoints leave the zone")
    checkpoints: str | None = Field(
        default=None, description="a folder that the zone's nodes share, or the URL of a place of any kind fsspec knows"
    )
    _series: PueSeries | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _providers_are_named(self) -> ZoneSite:
        if not self.names:
            raise ValueError("needs provider: who tells its intensity, e.g. provider: electricity_maps")
        if isinstance(self.as_name, dict) and (strange := sorted(self.as_name.keys() - set(self.names))):
            raise ValueError(f"as: {strange[0]} is no provider of the zone; it has {', '.join(self.names)}")
        if "csv" in self.names and self.file is None:
            raise ValueError("provider csv needs file: the path or address of a CSV with start_utc,g_per_kwh")
        return self

    @property
    def pue_by_time(self) -> Pue:
        """What joules are charged by: a number, or a series where the site file names a CSV."""
        return self._series or float(self.pue_given)

    @property
    def pue(self) -> float:
        """What plans reckon with: of a series the mean."""
        by_time = self.pue_by_time
        return by_time.mean if isinstance(by_time, PueSeries) else by_time

    @property
    def planning(self) -> list[str]:
        """The providers that plans are made by, in order."""
        return self.plan_by or self.provider or self.charge_by

    @property
    def charging(self) -> list[str]:
        """The providers that jobs are charged by, in order."""
        return self.charge_by or self.provider or self.plan_by

    @property
    def charges_apart(self) -> bool:
        """Whether it is charged by other providers than it plans by."""
        return self.planning != self.charging

    @property
    def names(self) -> list[str]:
        """All its providers, each once."""
        return list(dict.fromkeys([*self.planning, *self.charging]))

    def name_at(self, provider: str) -> str | None:
        """The provider's own name for the zone; None where it is the site's."""
        return self.as_name.get(provider) if isinstance(self.as_name, dict) else self.as_name


class ProviderSite(Section):
    """How one provider is reached; secrets come from the environment variables named here."""

    base_url: str | None = None
    token_env: str | None = None
    user_env: str | None = None
    password_env: str | None = None
    signal: Literal["average", "marginal"] | None = Field(
        default=None, description="for carbon_aware_sdk: the kind that its data source gives, which no answer tells"
    )
    signal_type: Literal["co2_moer", "co2_aoer"] = Field(
        default="co2_moer", description="for watttime: marginal (moer) or average (aoer) emissions"
    )
    granularity_s: Annotated[DurationS, AfterValidator(_is_granularity)] | None = Field(
        default=None, alias="granularity", description="for electricity_maps: slots of 5m, 15m or 60m, as the plan has"
    )
    factors: Literal["lifecycle", "direct"] = Field(
        default="lifecycle", description="for electricity_maps: emissions of the whole life cycle or of burning alone"
    )
    timeout_s: DurationS | None = Field(default=None, alias="timeout")


class LoggersSite(Section):
    """Where watts, joules and grams of running jobs are shown beside their loss; each needs its extra installed."""

    tensorboard: str | None = Field(
        default=None, min_length=1, description="folder of event files, one of its own for each job"
    )
    wandb: str | None = Field(default=None, min_length=1, description="project in Weights & Biases")
    mlflow: str | None = Field(
        default=None, min_length=1, description="tracking server or database, e.g. sqlite:////data/mlflow.db"
    )

    @property
    def targets(self) -> list[str]:
        """Those that are given, as `lowtide report --to` takes them."""
        return [f"{kind}:{place}" for kind in type(self).model_fields if (place := getattr(self, kind)) is not None]


class Site(Section):
    """One cluster and the grids that feed it."""

    state: Path = Path("state")
    database: str | None = None
    ray: str = "auto"
    slot_s: DurationS = Field(default=900.0, alias="slot")
    renew_within_s: DurationS = Field(
        default=600.0,
        alias="renew_within",
        description="a segment that no controller renews for this long checkpoints and ends by itself",
    )
    stuck_after_s: DurationS = Field(
        default=3600.0,
        alias="stuck_after",
        description="a segment that tells no other step or phase for this long, or a sixth of it in training, is "
        "killed and retried, where nothing measured of it asks for more",
    )
    stale_for_s: DurationS = Field(
        default=24 * 3600.0,
        alias="stale_for",
        description="how old the last good answer of a provider that fails may be",
    )
    zones: dict[str, ZoneSite] = Field(min_length=1)
    providers: dict[str, ProviderSite] = {}
    loggers: LoggersSite = LoggersSite()

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the store: `database` where given, else SQLite in the state folder."""
        return self.database or f"sqlite:///{self.state / 'lowtide.db'}"

    @property
    def history_s(self) -> float:
        """How far apart the points of a job's history are: a minute, less where slots are squeezed."""
        return min(60.0, max(1.0, self.slot_s / 15))

    @property
    def spool(self) -> str:
        """Folder on each host where its meter keeps rows until the controller has them."""
        return str(self.state / "spool")

    def zones_for(self, spec: JobSpec) -> tuple[str, ...]:
        """The zones that the spec names, else all of the site, without those that declare too few GPUs for it."""
        needed = min(spec.worker_counts()) * spec.workers.gpus
        named = [zone for zone in spec.carbon.zones or self.zones if zone in self.zones]
        declared = {zone: self.zones[zone].gpus for zone in named}
        return tuple(zone for zone, gpus in declared.items() if gpus is None or gpus >= needed)

    def checkpoints(self, zone: str, job_id: str) -> str:
        """The folder that a job's workers share in a zone; of a zone that keeps checkpoints at a URL, its own one."""
        given = self.zones[zone].checkpoints
        if given is None:
            root = str(self.state / "checkpoints")
        else:
            root = given if "://" not in given else str(self.state / "working" / quote(zone, safe=""))
        return f"{root.rstrip('/')}/{job_id}"

    def mirror(self, zone: str, job_id: str) -> str | None:
        """The URL where a zone keeps a job's checkpoints; None where their folder is their place."""
        given = self.zones[zone].checkpoints if zone in self.zones else None
        return f"{given.rstrip('/')}/{job_id}" if given is not None and "://" in given else None

    def places(self, zone: str, job_id: str) -> tuple[str, ...]:
        """Where a job's checkpoints of a zone may be found from elsewhere, the surest place first."""
        mirror = self.mirror(zone, job_id)
        return (*([mirror] if mirror else []), self.checkpoints(zone, job_id))

    def slot_start(self, moment: datetime) -> datetime:
        """The start of the slot that holds `moment`: slots are multiples of `slot` since the epoch, UTC."""
        seconds = moment.timestamp() // self.slot_s * self.slot_s
        return datetime.fromtimestamp(seconds, tz=moment.tzinfo)


def find_site(given: Path | None, start: Path) -> Site:
    """The site of `given`, else of the nearest lowtide.yaml upward from `start`, else the embedded one.

    Raises InputError where a file is wrong or the given one is absent.
    """
    if given is not None:
        return read_site(given)
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return read_site(folder / FILE_NAME)
    return embedded_site()


def embedded_site() -> Site:
    """One zone on the generated demo grid, a local Ray, and the state in the user's data folder."""
    state = Path(platformdirs.user_data_dir("lowtide"))
    return parse(
        {"state": str(state), "ray": "local", "zones": {EMBEDDED_ZONE: {"provider": "demo"}}}, Site, "embedded site"
    )


def read_site(path: Path) -> Site:
    """The site in a file, with paths made absolute from the file's folder; InputError names field and fix."""
    return resolve_site(read_mapping(path), base=path.resolve().parent, source=str(path))


def resolve_site(mapping: Mapping[str, Any], base: Path, source: str) -> Site:
    """Validate a site's mapping and make its paths absolute from `base`."""
    site = parse(mapping, Site, source)
    zones = {name: _absolute(zone, base, f"{source}: zones.{name}") for name, zone in site.zones.items()}
    update: dict[str, Any] = {"state": base / site.state.expanduser(), "zones": zones}
    if site.loggers.tensorboard is not None:
        folder = base / Path(site.loggers.tensorboard).expanduser()
        update["loggers"] = site.loggers.model_copy(update={"tensorboard": str(folder)})
    return site.model_copy(update=update)


def _absolute(zone: ZoneSite, base: Path, field: str) -> ZoneSite:
    update: dict[str, Any] = {}
    if zone.file is not None and "://" not in zone.file:
        path = base / Path(zone.file).expanduser()
        if not path.exists():
            raise InputError(f"{field}.file: {zone.file} is not a file below {base}, nor a folder; mend the path")
        update["file"] = str(path)
    if zone.checkpoints is not None:
        update["checkpoints"] = _checkpoints(zone.checkpoints, base, f"{field}.checkpoints")
    copied = zone.model_copy(update=update)
    if isinstance(zone.pue_given, str):
        copied._series = read_pue(base / Path(zone.pue_given).expanduser(), f"{field}.pue")
    return copied


def _checkpoints(given: str, base: Path, field: str) -> str:
    """A folder made absolute, or a URL of a kind that other processes and hosts can open."""
    protocol, is_url, path = given.partition("://")
    if not is_url:
        return str(base / Path(given).expanduser())
    from fsspec import available_protocols  # here, for hardly any command needs it

    if protocol not in available_protocols():
        raise InputError(f"{field}: {given} is of no kind that fsspec knows; give a folder, or a URL such as s3://…")
    if protocol == "memory" or not path.strip("/") or (protocol in ("file", "local") and not path.startswith("/")):
        raise InputError(f"{field}: {given} names no place that other hosts can open; give s3://bucket/folder, say")
    return given
