"""The fault campaign: `python -m tests.faults --rounds 50 --seed 1`, and `make faults`.
In: how many rounds, a seed, perhaps the kinds to draw from. Out: a line a round, a summary; exit 1 if all is not well.
Jobs train on a cluster of several nodes; each round breaks something at a random moment and waits until they go on.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.audit import Spooled, audit, ledger
from tests.faults.ground import WORKERS, Ground, Seen
from tests.faults.kinds import KINDS, Impossible, Kind, Missed
from tests.faults.reference import Reference
from tests.integration.ranks import differing


def main() -> int:
    """Run the campaign; 0 where nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="breaks things while jobs train")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--for", dest="for_s", type=float, default=float("inf"), help="begin no round after so many s")
    parser.add_argument("--only", action="append", choices=sorted(KINDS), help="draw from these alone, in this order")
    parser.add_argument("--keep", action="store_true", help="leave the folder for inspection")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))  # so that what was started is ended
    folder = Path(tempfile.mkdtemp(prefix="lowtide-faults-"))
    campaign = Campaign(folder, given.seed)
    try:
        said = campaign.run(draws(given.rounds, given.seed, given.only), given.for_s)
    finally:
        campaign.close()
        if given.keep:
            print(f"left in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return said


def draws(rounds: int, seed: int, only: list[str] | None) -> list[str]:
    """The kinds of the rounds: by weight, or those that are named in turn."""
    if only:
        return [only[n % len(only)] for n in range(rounds)]
    names = sorted(KINDS)
    return Random(seed).choices(names, [KINDS[name].weight for name in names], k=rounds)


class Campaign:
    """One site, one undisturbed run, and the rounds."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._rng = folder, Random(seed + 1)
        self._ground = Ground(folder)
        self._reference: Reference | None = None

    def run(self, names: list[str], for_s: float) -> int:
        """The rounds, then what they left; the exit code."""
        ground, began_s = self._ground, time.monotonic()
        ground.nodes.start()
        ground.serve()
        spooled = Spooled(ground)
        ground.submit()
        self._reference = Reference(self._folder / "reference", ground.document(), WORKERS)
        passed: Counter[str] = Counter()
        wrong: list[str] = []
        for number, name in enumerate(names, 1):
            if time.monotonic() - began_s > for_s:
                break
            try:
                line = self._round(KINDS[name])
            except Impossible as fault:
                print(f"round {number:2}  left out: {name}: {fault}", flush=True)
                continue
            except AssertionError as fault:
                wrong.append(f"round {number} ({name}): {fault}")
                break
            passed[name] += 1
            print(f"round {number:2}  {time.monotonic() - began_s:5.0f} s  {name}: {line}", flush=True)
        wrong = wrong or self._outcome(spooled)
        spooled.end()
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(passed.items()))
        print(f"{passed.total()} rounds passed ({kinds}); {len(ground.jobs)} jobs; {len(ledger(ground))} ledger rows")
        for text in wrong:
            print(f"WRONG: {text}", flush=True)
        return 1 if wrong else 0

    def _round(self, kind: Kind) -> str:
        """Strike at a random moment of training, and see the job go on."""
        ground = self._ground
        while True:
            seen = self._trains()
            time.sleep(self._rng.uniform(0.0, 4.0))
            try:
                said = kind.strike(ground, seen, self._rng)
                break
            except Missed:
                continue
        struck_s = time.monotonic()
        job_id = seen.segment.rpartition("-")[0]

        def goes_on() -> bool:
            now = ground.training(job_id)
            if now is None:
                return ground.done(job_id)
            return now.segment != seen.segment if kind.ends_segment else now.step > seen.step

        ground.until("training goes on", job_id, goes_on)
        return f"{said}; struck {seen.segment} after step {seen.step}, on after {time.monotonic() - struck_s:.0f} s"

    def _trains(self) -> Seen:
        while True:
            job_id = self._ground.current()
            seen = self._ground.until("training begins", job_id, partial(self._training_or_done, job_id))
            if isinstance(seen, Seen):
                return seen

    def _training_or_done(self, job_id: str) -> Seen | bool:
        return self._ground.training(job_id) or self._ground.done(job_id)

    def _outcome(self, spooled: Spooled) -> list[str]:
        """What is wrong with the finished jobs and with the ledger."""
        ground, wrong = self._ground, []
        assert self._reference is not None
        try:
            ground.until("the last job ends", ground.jobs[-1], lambda: ground.done(ground.jobs[-1]))
            whole = self._reference.checkpoints()
        except AssertionError as fault:
            return [str(fault)]
        for job_id in ground.jobs:
            wrong += [f"{job_id} differs: {each}" for each in differing(whole, ground.site.checkpoints(job_id))[:3]]
        wrong += audit(ground, spooled)
        verified = ground.site.ask("report", "--verify")
        return wrong if verified["intact"] else [*wrong, f"the ledger's chain: {verified['fault']}"]

    def close(self) -> None:
        """End every process."""
        if self._reference is not None:
            self._reference.end()
        self._ground.close()


if __name__ == "__main__":
    sys.exit(main())
