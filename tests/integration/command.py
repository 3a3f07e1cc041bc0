"""The `lowtide` command as users run it, for tests of the whole product: subprocesses, a site file, the store.
In: a folder and the site's settings. Out: what the commands say, and jobs, segments and rows as the store holds them.
conftest.py opens one for each test module and sees it down; nothing of the product runs in the test's own process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cluster.api import MeterRow
from orchestrator.store import Store, facts, jobs
from orchestrator.store.schema import Job, LedgerRow, Segment

Value = TypeVar("Value")

LOWTIDE = str(Path(sys.executable).with_name("lowtide"))
WITHIN_S = 300.0
"""What no wait should ever need: it ends a test that hangs, and says nothing of how fast the product is."""
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}


class Lowtide:
    """One site in a folder of its own, with its store and, once a command needs it, its embedded Ray."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None, **site: Any) -> None:
        self.folder = folder
        self.site_file = folder / "lowtide.yaml"
        self.state = folder / "state"
        self.zone = next(iter(site.get("zones", {"DEMO": {}})))
        document = {"state": "./state", "ray": "local", "slot": "5s", "zones": {"DEMO": {"provider": "demo"}}, **site}
        self.site_file.write_text(yaml.safe_dump(document), encoding="utf-8")
        corpus = "".join(f"line {n} of a corpus that repeats little: {n * n} {n**3 % 977}\n" for n in range(2000))
        (folder / "corpus.txt").write_text(corpus, encoding="utf-8")
        inherited = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
        self._env = {**inherited, "RAY_AUTH_MODE": "disabled", "COLUMNS": "200", **(env or {})}
        self.store = Store(f"sqlite:///{self.state / 'lowtide.db'}")

    # --- commands ----------------------------------------------------------------------------------------------

    def spec(self, name: str, **sections: Any) -> Path:
        """A spec file of a tiny job on two CPU workers; `sections` replace the sections of that name."""
        document = {
            "name": name,
            "job": "train",
            "model": {"config": LLAMA},
            "data": {"files": ["corpus.txt"], "sequence_length": 32, "holdout": 0.02},
            "training": {"steps": 40, "batch_size": 8, "micro_batch_size": 1, "learning_rate": 1e-2},
            "deepspeed": {"zero_optimization": {"stage": 2}},
            "workers": {"count": 2, "gpus": 0, "cpus": 1},
            "carbon": {"policy": "now"},
            **sections,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """What the command writes to stdout; the test fails where it ends with another exit code."""
        return self.end(self.start(*arguments), code)

    def ask(self, *arguments: str | Path) -> Any:
        """What the command says with --json."""
        return json.loads(self.run(*arguments, "--json"))

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """The command in the background."""
        return self.start_line([LOWTIDE, "--site", str(self.site_file), *map(str, arguments)], self._env)

    def start_line(self, line: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
        """A whole command line in the background, with no more environment than is given."""
        pipe = subprocess.PIPE
        return subprocess.Popen(line, cwd=self.folder, env=env, text=True, stdout=pipe, stderr=pipe)

    def end(self, process: subprocess.Popen[str], code: int | None = 0) -> str:
        """Wait for a command; what it wrote to stdout."""
        return self.both(process, code)[0]

    def both(self, process: subprocess.Popen[str], code: int | None = 0) -> tuple[str, str]:
        """Wait for a command; what it wrote to stdout and to stderr. None allows any exit code."""
        with process:
            try:
                output, errors = process.communicate(timeout=2 * WITHIN_S)
            except BaseException:
                process.kill()
                raise
        ended = f"{process.args} ended with {process.returncode}\n{output}\n{errors}"
        assert code is None or process.returncode == code, ended
        assert "Traceback" not in errors, errors
        return output, errors

    @contextmanager
    def running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """The command in the background, and killed where the test fails meanwhile."""
        process = self.start(*arguments)
        try:
            yield process
        except BaseException:
            process.kill()
            process.communicate()
            raise

    @contextmanager
    def serving(self) -> Iterator[None]:
        """`lowtide serve` in the background; ended by SIGTERM, which is no fault."""
        with self.running("serve") as process:
            yield
        process.send_signal(signal.SIGTERM)
        self.end(process)

    # --- what the store holds ----------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        with self.store.read() as session:
            return jobs.find(session, job_id)

    def segments(self, job_id: str) -> Sequence[Segment]:
        with self.store.read() as session:
            return jobs.segments_of(session, job_id)

    def training(self, job_id: str) -> Segment | None:
        """The job's segment that has taken a step and not ended, as the newest pass saw it."""
        running = [segment for segment in self.segments(job_id) if segment.ended is None and segment.trained_steps > 0]
        return running[0] if running else None

    def rows(self, job_id: str) -> list[MeterRow]:
        """The job's ledger rows."""
        with self.store.read() as session:
            return facts.rows_of(session, job_id)

    def idle_rows(self) -> list[LedgerRow]:
        """The host's idle account."""
        with self.store.read() as session:
            return session.query(LedgerRow).where(LedgerRow.job_id.is_(None)).order_by(LedgerRow.start).all()

    def checkpoints(self, job_id: str) -> Path:
        return self.state / "checkpoints" / job_id

    def story(self, job_id: str) -> str:
        """The job's history and its newest segment's output, for a test that fails."""
        return self.run("logs", job_id)

    def ticks(self, seen: Callable[[], Value], job_id: str) -> Value:
        """`lowtide tick` again and again, as cron runs it, until `seen` is true of what it left."""

        def tick() -> Value:
            self.run("tick")
            return seen()

        return self.until(tick, job_id, pause_s=1.0)

    def until(
        self, seen: Callable[[], Value], *job_ids: str, within_s: float = WITHIN_S, pause_s: float = 0.2
    ) -> Value:
        """The first value of `seen` that is true; fails with the jobs' stories where one has ended, or too late."""
        deadline_s = time.monotonic() + within_s
        while True:
            over = any(self.job(job_id).state in jobs.ENDED_STATES for job_id in job_ids)
            if value := seen():
                return value
            if over or time.monotonic() > deadline_s:
                raise AssertionError("\n".join(self.story(job_id) for job_id in job_ids))
            time.sleep(pause_s)
