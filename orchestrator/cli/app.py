"""Every command's name, arguments and help; nothing else, so that help is quick.
In: the command line. Out: a call into the module that does the work.
The contract of the commands is the README's; their work is in the modules beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="lowtide",
    help="Train when the grid runs clean: DeepSpeed jobs on Ray, planned by carbon-intensity forecasts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="Job spec (YAML).")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Id or name of a job.")]
AnyJob = Annotated[str | None, typer.Argument(metavar="[JOB]", help="Id or name of a job; all without it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]


@app.callback()
def _lowtide(
    context: typer.Context,
    site: Annotated[
        Path | None,
        typer.Option("--site", metavar="FILE", help="Site file; else lowtide.yaml upward from here, else embedded."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens to stderr.")] = False,
) -> None:
    context.obj = site
    import logging

    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


@app.command()
def run(
    context: typer.Context,
    spec: SpecFile,
    out: Annotated[Path | None, typer.Option("--out", help="Write report.json, .html and .png to this folder.")] = None,
) -> None:
    """Submit a job, drive it in the foreground with a live view, and report."""
    from orchestrator.cli.drive import run as work

    work(context.obj, spec, out)


@app.command()
def submit(context: typer.Context, spec: SpecFile, json: Json = False) -> None:
    """Validate a spec and store it as a job."""
    from orchestrator.cli.submit import submit as work

    work(context.obj, spec, json)


@app.command()
def plan(context: typer.Context, spec: SpecFile, json: Json = False) -> None:
    """Show when and where a spec would run, without storing it."""
    from orchestrator.cli.submit import plan as work

    work(context.obj, spec, json)


@app.command()
def status(
    context: typer.Context,
    job: AnyJob = None,
    json: Json = False,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also all jobs that ended longer ago.")] = False,
) -> None:
    """Show the state of jobs, and why: of those that have not ended, and of the newest that have."""
    from orchestrator.cli.show import status as work

    work(context.obj, job, json, all_)


@app.command()
def logs(
    context: typer.Context,
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the job writes.")] = False,
    json: Json = False,
) -> None:
    """Show a job's history and what its newest segment wrote."""
    from orchestrator.cli.show import logs as work

    work(context.obj, job, follow, json)


@app.command()
def pause(context: typer.Context, job: JobName) -> None:
    """Checkpoint a job at its next step and release its GPUs, until `resume`."""
    from orchestrator.cli.submit import ask

    ask(context.obj, job, "hold")


@app.command()
def resume(context: typer.Context, job: JobName) -> None:
    """Let a paused job go on when its plan says so."""
    from orchestrator.cli.submit import ask

    ask(context.obj, job, "run")


@app.command()
def cancel(context: typer.Context, job: JobName) -> None:
    """End a job for good; its checkpoints stay."""
    from orchestrator.cli.submit import ask

    ask(context.obj, job, "cancel")


@app.command()
def report(
    context: typer.Context,
    job: AnyJob = None,
    json: Json = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained page.")] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write the picture of grid, plan and power.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the ledger's rows with their grams.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="The same as Parquet.")] = None,
    codecarbon: Annotated[
        Path | None, typer.Option("--codecarbon", help="Put its segments into a file with CodeCarbon's columns.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="LOGGER", help="tensorboard:FOLDER, wandb:PROJECT or mlflow:URI; repeat."),
    ] = None,
    month: Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="Add up a month of all jobs.")] = None,
    by: Annotated[str, typer.Option("--by", help="With --month: project, user or zone.")] = "project",
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that nothing in the ledger was changed since it was written.")
    ] = False,
) -> None:
    """Account for a job's joules and grams, by worker, segment and phase."""
    if verify:
        from orchestrator.cli.audit import verify as check

        check(context.obj, job, json)
    elif month is not None:
        from orchestrator.cli.month import month as add_up

        add_up(context.obj, month, by, json)
    else:
        from orchestrator.cli.show import Files
        from orchestrator.cli.show import report as work

        work(context.obj, job, json, Files(html, png, csv, parquet, codecarbon, tuple(to or ())))


@app.command()
def forecast(
    context: typer.Context,
    zone: Annotated[str, typer.Argument(metavar="ZONE")],
    json: Json = False,
    backtest: Annotated[
        bool, typer.Option("--backtest", help="How good forecasts were, by lead time, on stored history.")
    ] = False,
) -> None:
    """Draw a zone's carbon intensity, now and a week ahead, with its sources."""
    from orchestrator.cli.forecast import forecast as work

    work(context.obj, zone, json, backtest)


@app.command()
def serve(context: typer.Context) -> None:
    """Control the site's jobs until ended."""
    from orchestrator.cli.drive import serve as work

    work(context.obj)


@app.command()
def tick(context: typer.Context) -> None:
    """One pass, for cron; safe to run every minute, also twice at once."""
    from orchestrator.cli.drive import tick as work

    work(context.obj)


@app.command()
def window(
    context: typer.Context,
    length: Annotated[str, typer.Option("--for", metavar="LENGTH", help="How long it stays open, e.g. 8h.")],
) -> None:
    """Open a training window; pause what runs before it closes."""
    from orchestrator.cli.drive import window as work

    work(context.obj, length)


@app.command()
def grid(
    trace: Annotated[Path | None, typer.Argument(metavar="[TRACE.csv]", help="Columns start_utc,g_per_kwh.")] = None,
    zone: Annotated[str, typer.Option("--zone", help="Name of the zone that is served.")] = "DEMO",
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8090,
    day: Annotated[str, typer.Option("--day", help="Real time that a day of the trace takes, e.g. 4m.")] = "24h",
    start: Annotated[str, typer.Option("--start", help="How far into the trace it begins, e.g. 9h.")] = "0h",
) -> None:
    """Serve a trace (or the generated demo grid) as the Electricity Maps API does, on loopback."""
    from orchestrator.cli.place import grid as work

    work(trace, zone, host, port, day, start)


@app.command()
def simulate(
    trace: Annotated[
        list[str] | None,
        typer.Option("--trace", metavar="ZONE=FILE", help="A recorded grid (CSV with start_utc); repeat for zones."),
    ] = None,
    actual_column: Annotated[str, typer.Option("--actual-column", help="Column to charge by.")] = "g_per_kwh",
    forecast_column: Annotated[
        str | None, typer.Option("--forecast-column", help="Column to plan by, anew each slot; else by what came.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="YAML: throughput and watts by worker count; else 1 kW.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model of the profile.")] = None,
    workers: Annotated[str | None, typer.Option("--workers", help="Counts to choose from, e.g. 1..8.")] = None,
    length: Annotated[str | None, typer.Option("--length", help="Time that one worker needs; else 24h.")] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="From each start; else 36h.")] = None,
    every: Annotated[str | None, typer.Option("--every", help="A start each so often; else 149h.")] = None,
    jobs: Annotated[
        Path | None,
        typer.Option("--jobs", help="CSV of jobs, each with its own start, length and deadline, that share GPUs."),
    ] = None,
    capacity: Annotated[
        list[str] | None,
        typer.Option("--capacity", metavar="ZONE=GPUS", help="GPUs that --jobs share; repeat; else no limit."),
    ] = None,
    policies: Annotated[
        str, typer.Option("--policies", help="Which ones, with commas.")
    ] = "now,threshold,window,slots,greedy,optimal",
    pause_cost: Annotated[str, typer.Option("--pause-cost", help="Time that a start after the first takes.")] = "60s",
    move_cost: Annotated[str, typer.Option("--move-cost", help="More of it where the zone changes.")] = "0s",
    slot: Annotated[str, typer.Option("--slot", help="Plans are cut at its multiples.")] = "60m",
    json: Json = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained page.")] = None,
) -> None:
    """Run the policies against recorded grids: what each would have emitted and saved."""
    from orchestrator.cli.simulate import Asked, run

    asked = Asked(
        trace=trace or [],
        actual_column=actual_column,
        forecast_column=forecast_column,
        profile=profile,
        model=model,
        workers=workers,
        length=length,
        deadline=deadline,
        every=every,
        policies=policies,
        pause_cost=pause_cost,
        move_cost=move_cost,
        slot=slot,
        jobs=jobs,
        capacity=capacity or [],
    )
    run(asked, json, html)


@app.command()
def doctor(context: typer.Context, json: Json = False) -> None:
    """Check what training here needs, and say how to mend what is missing."""
    from orchestrator.cli.place import doctor as work

    work(context.obj, json)


@app.command()
def down(context: typer.Context) -> None:
    """End the embedded Ray, by its own process ids."""
    from orchestrator.cli.place import down as work

    work(context.obj)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the state and the report.")] = Path("demo-out"),
) -> None:
    """The main job, end to end, on a generated grid that is squeezed into minutes."""
    from orchestrator.cli.demo import demo as work

    work(out)
