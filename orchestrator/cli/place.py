"""The commands about this place: grid (a local replay server), doctor (what is missing here), down (end the Ray).
In: options. Out: a server until ended, a list of findings, ended processes.
They need no job.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cluster.api import Finding, diagnose, reach, stop_local
from jobs.spec import InputError, LowtideError, Unavailable, seconds
from orchestrator.cli.desk import print_json
from orchestrator.controller import utcnow
from orchestrator.grid import serve
from orchestrator.replay import Replay, demo_trace, read_trace
from orchestrator.site import Site, find_site
from orchestrator.store import Store

_DAY_S = 86_400.0


def grid(trace: Path | None, zone: str, host: str, port: int, day: str, start: str) -> None:
    """Replay a trace over HTTP until ended."""
    played = demo_trace(zone) if trace is None else read_trace(trace)
    try:
        day_s = seconds(day)
        start_s = 0.0 if start in ("0", "0h") else seconds(start)
    except ValueError as fault:
        raise InputError(f"--day or --start: {fault}") from None
    replay = Replay.begin(played, utcnow(), speed=_DAY_S / day_s, start_s=start_s)
    print(f"{zone}: {played.note}; a slot of the trace lasts {replay.slot_s} s")
    print(f"base_url: http://{host}:{port}/v4, slot: {replay.slot_s}s", flush=True)
    serve({zone: replay}, host, port)


def doctor(site_file: Path | None, as_json: bool) -> None:
    """Check the site, its store, its providers' settings, and what training on this machine needs."""
    findings = [*_site_findings(site_file), *diagnose()]
    if as_json:
        print_json([{"what": f.what, "ok": f.ok, "text": f.text} for f in findings])
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'MEND'}  {finding.what}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise Unavailable("something is missing here; see the lines above marked MEND")


def _site_findings(site_file: Path | None) -> list[Finding]:
    try:
        site = find_site(site_file, Path.cwd())
    except LowtideError as fault:
        return [Finding("site", False, str(fault))]
    found = [Finding("site", True, f"zones {', '.join(site.zones)}; state in {site.state}")]
    checks: dict[str, Callable[[], str]] = {"store": partial(_store, site), "providers": partial(_providers, site)}
    for zone, given in site.zones.items():
        if given.checkpoints is not None:
            checks[f"checkpoints of {zone}"] = partial(reach, given.checkpoints)
    for what, check in checks.items():
        try:
            found.append(Finding(what, True, check()))
        except LowtideError as fault:
            found.append(Finding(what, False, str(fault)))
    return found


def _store(site: Site) -> str:
    Store(site.store_url).close()
    return site.store_url.split("@")[-1]


def _providers(site: Site) -> str:
    from orchestrator.signal.sources import Signals

    signals = Signals.of(site)
    signals.check()
    answers = []
    for zone in site.zones:
        found = signals.forecast(zone)
        answers.append(f"{zone} by {found.provider} until {found.points[-1].end:%Y-%m-%d %H:%M}Z")
    return ", ".join(answers)


def down(site_file: Path | None) -> None:
    """End the site's embedded Ray; its jobs go on from their checkpoints when a controller runs again."""
    site = find_site(site_file, Path.cwd())
    ended = stop_local(str(site.state))
    print("the embedded Ray has ended" if ended else "no embedded Ray is running for this site")
