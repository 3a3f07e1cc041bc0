"""The job spec: every section of the YAML that a user submits, typed and validated.
In: a YAML file. Out: a frozen JobSpec whose paths are absolute, which the store keeps as JSON.
The planner reads `carbon` and `workers`; the workers read the rest.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from jobs.spec import entrypoint as entrypoints
from jobs.spec.document import Section
from jobs.spec.units import DurationS, MassG, Moment, Utc, WorkerRange

Policy = Literal["observe", "now", "threshold", "window", "slots", "greedy", "optimal"]


class Lora(Section):
    """Low-rank adapters instead of full fine-tuning."""

    r: int = Field(gt=0)


class Model(Section):
    """What is trained: a fresh model from a config, or weights from a folder or hub id."""

    config: dict[str, Any] | None = None
    path: str | None = None
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Model:
        if (self.config is None) == (self.path is None):
            raise ValueError("give either config (a fresh model) or path (existing weights), not both or neither")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("config needs model_type, e.g. {model_type: llama, hidden_size: 256}")
        return self


class Data(Section):
    """The text that is trained on."""

    files: list[str] = Field(min_length=1)
    tokenizer: str = "bytes"
    sequence_length: int = Field(default=256, ge=2)
    holdout: float = Field(default=0.0, ge=0.0, lt=1.0)


class Training(Section):
    """How long and in what steps; `batch_size` is global whatever the worker count."""

    steps: int | None = Field(default=None, gt=0)
    epochs: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    batch_size: int = Field(gt=0)
    micro_batch_size: int = Field(default=8, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if sum(length is not None for length in (self.steps, self.epochs, self.tokens)) != 1:
            raise ValueError("give exactly one of steps, epochs or tokens")
        return self


class Distill(Section):
    """A frozen teacher whose next-token distribution the student learns."""

    teacher: Model
    loss: Literal["forward_kl"] = "forward_kl"
    temperature: float = Field(default=1.0, gt=0)
    alpha: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="weight of the distillation loss; 1 - alpha is the hard-label loss's",
    )


class Script(Section):
    """A DeepSpeed or Hugging Face script of the user's own."""

    entrypoint: str
    folder: str | None = Field(default=None, description="where it runs, the same on every node; the spec's folder")
    asks: bool | None = Field(default=None, description="whether it imports lowtide; None until somebody has looked")
    elastic: bool = Field(default=False, description="whether it goes on from a checkpoint of another worker count")

    @field_validator("entrypoint")
    @classmethod
    def _can_be_run(cls, entrypoint: str) -> str:
        entrypoints.command(entrypoint, "python")
        return entrypoint


class Workers(Section):
    """How many workers, and what each takes of a node."""

    count: WorkerRange = (1, 1)
    gpus: int = Field(default=1, ge=0, description="per worker; 0 trains on CPUs")
    gpu_kind: str | None = Field(
        default=None, description="as Ray names it, e.g. H100: only nodes with such GPUs are taken"
    )
    cpus: float = Field(default=1, gt=0)
    power_limit_w: list[Annotated[int, Field(gt=0)]] | None = Field(
        default=None, alias="power_limit", min_length=1, description="W per GPU to choose from"
    )

    @model_validator(mode="after")
    def _has_gpus(self) -> Workers:
        for field, given in (("power_limit", self.power_limit_w), ("gpu_kind", self.gpu_kind)):
            if given is not None and self.gpus == 0:
                raise ValueError(f"{field} is of GPUs, and gpus is 0; remove one of them")
        return self


class Carbon(Section):
    """When and where the job may run."""

    zones: list[str] | None = Field(default=None, min_length=1)
    policy: Policy = "optimal"
    min_run_s: DurationS | None = Field(default=None, alias="min_run")
    max_pauses: int | None = Field(default=None, ge=0)
    finish_by: Moment | None = None
    max_intensity_g_per_kwh: float | None = Field(default=None, gt=0, alias="max_intensity")
    min_renewable_percent: float | None = Field(default=None, ge=0, le=100)
    windows: list[str] = []
    budget_g: MassG | None = Field(default=None, alias="budget")


class Checkpointing(Section):
    """How often a running job saves, and how many checkpoints stay."""

    every_s: DurationS = Field(default=900.0, alias="every")
    keep: int = Field(default=2, ge=1)


class JobSpec(Section):
    """One job as a user writes it; see the README for the whole example."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")
    job: Literal["train", "distill", "compress", "script"]
    project: str | None = None
    user: str | None = None
    env: dict[str, str] = {}
    secrets: list[str] = Field(default=[], description="names of variables that the controller's environment holds")
    working_dir: str | None = None
    not_before: Utc | None = None
    model: Model | None = None
    data: Data | None = None
    training: Training | None = None
    deepspeed: dict[str, Any] = {}
    distill: Distill | None = None
    script: Script | None = None
    workers: Workers = Workers()
    carbon: Carbon = Carbon()
    priority: int = 0
    checkpoint: Checkpointing = Checkpointing()

    @field_validator("secrets")
    @classmethod
    def _names_alone(cls, secrets: list[str]) -> list[str]:
        wrong = [name for name in secrets if not name.isidentifier()]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no name of a variable; give names alone, as [HF_TOKEN]")
        return secrets

    @field_validator("deepspeed")
    @classmethod
    def _batch_is_ours(cls, config: dict[str, Any]) -> dict[str, Any]:
        ours = {
            "train_batch_size",
            "train_micro_batch_size_per_gpu",
            "gradient_accumulation_steps",
        } & config.keys()
        if ours:
            raise ValueError(f"{sorted(ours)[0]} follows from training.batch_size and the worker count; remove it")
        return config

    @model_validator(mode="after")
    def _sections_of_the_job(self) -> JobSpec:
        needed = {
            "train": ("model", "data", "training"),
            "distill": ("model", "data", "training", "distill"),
            "compress": ("model", "data", "training"),
            "script": ("script",),
        }[self.job]
        for section in needed:
            if getattr(self, section) is None:
                raise ValueError(f"job: {self.job} needs a {section} section; add it")
        for section in ("distill", "script"):
            if section not in needed and getattr(self, section) is not None:
                raise ValueError(f"{section} has no meaning for job: {self.job}; remove it or change job")
        if self.training is not None and not self.worker_counts():
            low, high = self.workers.count
            raise ValueError(
                f"workers.count: no count from {low} to {high} divides training.batch_size {self.training.batch_size}; "
                "change one of them"
            )
        if len(self.worker_counts()) > 1:
            self._check_elastic()
        return self

    def _check_elastic(self) -> None:
        """Refuse a range of workers with an optimizer whose state no other width can take up."""
        zero = self.deepspeed.get("zero_optimization", {})
        kind = str(self.deepspeed.get("optimizer", {}).get("type", "AdamW"))
        if self.zero_stage() == 3 and kind.lower() not in ("adam", "adamw"):
            raise ValueError(f"workers.count: {kind} cannot change its width at ZeRO stage 3; give one count, or AdamW")
        if zero.get("offload_optimizer", {}).get("device") == "nvme":
            raise ValueError("workers.count: an optimizer on nvme cannot change its width; give one count")

    def worker_counts(self) -> tuple[int, ...]:
        """The worker counts that the job may run at: those of the range that divide the global batch."""
        low, high = self.workers.count
        if self.script is not None and not self.script.elastic:
            return (high,)
        if self.training is None:
            return tuple(range(low, high + 1))
        return tuple(n for n in range(low, high + 1) if self.training.batch_size % n == 0)

    def is_blind(self) -> bool:
        """Whether the job is a script that never asks for a checkpoint: started once, and from the start if ended."""
        return self.script is not None and self.script.asks is False

    def width(self) -> int:
        """The largest worker count that the job's range and its batch allow."""
        return max(self.worker_counts())

    def modes(self, gpus: int | None = None) -> tuple[tuple[int, int | None], ...]:
        """Worker counts with power limits (W; None is no limit) that the job may run at, the most powerful first.

        `gpus` is how many there are for it, where that is known: counts that need more are left out.
        """
        each = self.workers.gpus
        counts = sorted((n for n in self.worker_counts() if gpus is None or n * each <= gpus), reverse=True)
        limits: list[int | None] = [*sorted(set(self.workers.power_limit_w or ()), reverse=True)] or [None]
        return tuple((count, limit) for count in counts for limit in limits)

    def zero_stage(self) -> int:
        """The ZeRO stage (0 to 3) that the DeepSpeed section asks for; 0 where it is silent."""
        return int(self.deepspeed.get("zero_optimization", {}).get("stage", 0))

    def finish_by_at(self, submitted_at: datetime) -> datetime | None:
        """The deadline in UTC, or None where the spec gives none."""
        moment = self.carbon.finish_by
        if isinstance(moment, datetime) or moment is None:
            return moment
        return submitted_at + timedelta(seconds=moment)

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON that `JobSpec.model_validate` reads back to an equal spec."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
