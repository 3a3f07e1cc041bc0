"""The crontab lines of the README, run as cron runs them: with a short PATH, and without the user's variables.
In: README.md's crontab block. Out: ticks at the same minute start one segment; a window pauses what it closes over.
Only the site's path, the command's path and the window's length are put in place of the README's.
"""

from __future__ import annotations

import os
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
from croniter import croniter

from jobs.spec import utc
from tests.integration.command import LOWTIDE, Lowtide
from tests.integration.conftest import Opening

pytestmark = pytest.mark.timeout(1800)  # its fixtures take minutes where others use the machine, too

README = Path(__file__).resolve().parents[2] / "README.md"
STEPS = 1200
CLOSES_SOON, LONG_ENOUGH = "30s", "60s"
NIGHTS_AT_MOST = 5


def crontab() -> list[tuple[str, str]]:
    """Schedule and command of every line of the README's crontab blocks."""
    blocks = re.findall(r"^```cron(?:tab)?\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]
    found = [line.split(maxsplit=5) for line in lines]
    return [(" ".join(fields[:5]), fields[5]) for fields in found]


def line_of(subcommand: str) -> str:
    """The README's command for it; skipped where the README has no crontab."""
    lines = [command for _, command in crontab() if subcommand in command.split()]
    if not lines:
        pytest.skip(f"README.md has no crontab line with {subcommand}")
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def site(lowtide_at: Opening) -> Lowtide:
    return lowtide_at()


def by_cron(site: Lowtide, command: str, length: str | None = None) -> subprocess.Popen[str]:
    """The command line as cron starts it on this site, with another length of the window."""
    assert command.startswith("lowtide --site /path/lowtide.yaml ")
    line = command.replace("lowtide ", f"{LOWTIDE} ", 1).replace("/path/lowtide.yaml", str(site.site_file))
    if length is not None:
        line = re.sub(r"--for \S+", f"--for {length}", line)
    env = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "HOME": os.environ["HOME"], "LOGNAME": "cron"}
    return site.start_line(["/bin/sh", "-c", line], env)


def window(site: Lowtide, length: str) -> datetime:
    """Run a window to its end; when it closed."""
    _, said = site.both(by_cron(site, line_of("window"), length))
    opened = re.search(r"window open until (\S+)", said)
    assert opened is not None and "window closed" in said
    return utc(opened[1])


def test_the_schedules_are_every_minute_and_every_night() -> None:
    if not crontab():
        pytest.skip("README.md has no crontab")
    assert all(croniter.is_valid(schedule) for schedule, _ in crontab())
    noon = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
    comes = {command.split()[3]: croniter(schedule, noon).get_next(datetime) for schedule, command in crontab()}
    assert comes == {"tick": noon.replace(minute=1), "window": noon.replace(hour=22)}


def test_ticks_of_the_same_minute_start_one_segment(site: Lowtide) -> None:
    training = {"steps": STEPS, "batch_size": 8, "micro_batch_size": 1, "learning_rate": 1e-2}
    site.run("submit", site.spec("nightly", training=training))
    for process in [by_cron(site, line_of("tick")) for _ in range(2)]:
        site.end(process)
    (segment,) = site.segments("nightly")
    assert (segment.id, segment.reason, segment.ended) == ("nightly-1", "start", None)
    assert site.ticks(lambda: site.training("nightly"), "nightly")
    assert len(site.segments("nightly")) == 1


def test_a_window_pauses_what_runs_before_it_closes_and_later_ones_finish_it(site: Lowtide) -> None:
    closes_at = window(site, CLOSES_SOON)
    (segment,) = site.segments("nightly")
    assert segment.ended == "window" and segment.ended_at is not None and segment.ended_at <= closes_at
    assert 0 < segment.step < STEPS and site.job("nightly").state == "paused"

    for _ in range(NIGHTS_AT_MOST):
        if site.job("nightly").state != "done":
            window(site, LONG_ENOUGH)
    job, segments = site.job("nightly"), site.segments("nightly")
    assert (job.state, job.step) == ("done", STEPS), site.story("nightly")
    assert segments[1].reason == "resume" and segments[1].start_step == segment.step
    assert {segment.ended for segment in segments[:-1]} == {"window"} and segments[-1].ended == "done"
