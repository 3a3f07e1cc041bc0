"""The commands that control: run (one job in the foreground), serve (until ended), tick (once), window (a while).
In: the site, perhaps a spec. Out: passes, one after another, under the lease.
The controller does the work; forecasts are refreshed, and jobs that share room planned together, beside it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType

from jobs.spec import InputError, JobFault, Unavailable, iso, seconds
from orchestrator.attach import attach, attach_if_running
from orchestrator.cli.desk import Desk, desk
from orchestrator.cli.live import Live
from orchestrator.cli.submit import admit_and_store
from orchestrator.controller import Controller, utcnow
from orchestrator.loggers import Follower, followed
from orchestrator.planner import Planner
from orchestrator.refresh import Refresher
from orchestrator.site import Site
from orchestrator.store.jobs import ENDED_STATES, running_segments
from orchestrator.store.lease import Held
from orchestrator.store.schema import Job

_CLOSING = timedelta(minutes=2)
"""How long `window` waits, after it has closed, for what runs to be saved."""


def pass_every_s(site: Site) -> float:
    """Seconds between passes: a twentieth of a slot, within one and fifteen seconds."""
    return min(15.0, max(1.0, site.slot_s / 20))


def run(site_file: Path | None, spec_file: Path, out: Path | None) -> None:
    """Submit a job and drive it here until it ends; the job's fault is this command's exit code."""
    from orchestrator.cli.show import show_report, write_report

    with desk(site_file) as at:
        job_id = admit_and_store(at, spec_file).id
        state = drive_job(at, job_id)
        show_report(at, job_id)
        if out is not None:
            write_report(at, job_id, out)
        if state == "failed":
            with at.store.read() as session:
                raise JobFault(f"{job_id} failed: {session.get_one(Job, job_id).reason}; see `lowtide logs {job_id}`")


def drive_job(at: Desk, job_id: str) -> str:
    """Make passes until the job has ended, with a live view; returns its state."""
    with _beside(at) as planner, Live(at, job_id) as live:
        controller = _controller(at)
        try:
            while True:
                if _pass_or_watch(controller):
                    planner.wake()
                live.update()
                with at.store.read() as session:
                    state = session.get_one(Job, job_id).state
                if state in ENDED_STATES:
                    return state
                time.sleep(pass_every_s(at.site))
        except KeyboardInterrupt:
            live.leave(f"{job_id} stays stored; `lowtide serve` or `tick` goes on with it")
            raise
        finally:
            controller.release()


def serve(site_file: Path | None) -> None:
    """Make passes until SIGINT or SIGTERM; running segments go on until their `run_until`."""
    with desk(site_file) as at, _beside(at) as planner, _until_ended() as ended:
        controller = _controller(at)
        print(f"controls {', '.join(at.site.zones)}; a pass every {pass_every_s(at.site):g} s", file=sys.stderr)
        _passes(controller, planner, at, ended, lambda: None)


def tick(site_file: Path | None) -> None:
    """One pass. Where another controller is at work it does nothing, and that is fine."""
    with desk(site_file) as at:
        Refresher(at.store, at.site).once()
        controller = _controller(at)
        try:
            controller.hold()
            Planner(at.store, at.site).once()
            controller.run_pass()
        except Held as other:
            print(f"another controller is at work ({other}); nothing to do", file=sys.stderr)
            return
        controller.release()
        with closing(Follower(at.store, at.site)) as follower:
            follower.once()


def window(site_file: Path | None, length: str) -> None:
    """Open a training window; what runs is paused when it closes, and the command ends then."""
    try:
        closes_at = utcnow() + timedelta(seconds=seconds(length))
    except ValueError as fault:
        raise InputError(f"--for: {fault}") from None
    with desk(site_file) as at, _beside(at, closes_at) as planner, _until_ended() as ended:
        print(f"window open until {iso(closes_at)}", file=sys.stderr)
        controller = _controller(at)

        def past_the_end() -> datetime | None:
            with at.store.read() as session:
                running = bool(running_segments(session))
            # A segment that does not end is the dead man's switch's to end: cron must get its command back.
            if utcnow() >= closes_at and (not running or utcnow() >= closes_at + _CLOSING):
                ended.set()
            return closes_at

        _passes(controller, planner, at, ended, past_the_end)
        print("window closed", file=sys.stderr)


def _controller(at: Desk) -> Controller:
    """The site's controller; that meters hold rows is no reason to start an embedded Ray."""
    return Controller(at.store, at.site, lambda: attach(at.site), visit=lambda: attach_if_running(at.site))


def _passes(
    controller: Controller,
    planner: Planner,
    at: Desk,
    ended: threading.Event,
    window_end: Callable[[], datetime | None],
) -> None:
    """Pass after pass until `ended`; a store or cluster that fails for a while is waited for."""
    held = False
    try:
        while not ended.is_set():
            try:
                controller.run_pass(window_end())
                planner.wake()
                held = False
            except Held as other:
                if not held:
                    print(f"another controller is at work ({other}); waiting for it to end", file=sys.stderr)
                held = True
            except Unavailable as fault:
                print(f"lowtide: {fault}", file=sys.stderr)
            ended.wait(pass_every_s(at.site))
    finally:
        controller.release()


def _pass_or_watch(controller: Controller) -> bool:
    """One pass; False where another controller has the lease: that one drives the job and this one watches."""
    try:
        controller.run_pass()
    except Held:
        return False
    return True


@contextmanager
def _beside(at: Desk, window_end: datetime | None = None) -> Iterator[Planner]:
    """Forecasts are fetched once now, and then beside the passes; so are jobs planned that share room, and followed."""
    refresher, planner = Refresher(at.store, at.site), Planner(at.store, at.site, window_end)
    refresher.once()
    stop = threading.Event()
    every_s = pass_every_s(at.site)
    threads = [
        threading.Thread(target=work.forever, args=(stop, every_s), daemon=True, name=name)
        for name, work in (("refresh", refresher), ("plan", planner))
    ]
    for thread in threads:
        thread.start()
    try:
        with followed(at.store, at.site):
            yield planner
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=5)


@contextmanager
def _until_ended() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets, so that the pass at work is finished first."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
