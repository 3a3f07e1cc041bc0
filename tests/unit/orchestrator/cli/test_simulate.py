"""The simulate command as users meet it: a table, JSON that sums, a page, one clear line for wrong input."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.orchestrator.cli.conftest import Lowtide

PRICES = [300, 100, 200, 50, 400, 100] * 4
PROFILE = """
small:
  1: {throughput: 1000.0, power_w: 100.0}
  2: {throughput: 1900.0, power_w: 190.0}
  4: {throughput: 3000.0, power_w: 400.0}
other:
  1: {throughput: 1.0, power_w: 100.0}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lines = [f"2022-03-01T{hour:02d}:00:00Z,{g},{500 - g}" for hour, g in enumerate(PRICES)]
    (tmp_path / "de.csv").write_text("start_utc,g_per_kwh,wrong_g\n" + "\n".join(lines) + "\n")
    (tmp_path / "low.csv").write_text("start_utc,g_per_kwh\n2022-03-01T00:00:00Z,10\n2022-03-01T01:00:00Z,\n")
    (tmp_path / "profile.yaml").write_text(PROFILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SHORT = ("--trace", "DE=de.csv", "--length", "2h", "--deadline", "6h", "--every", "6h", "--pause-cost", "0")


def rows(answer: tuple[int, str, str]) -> dict[str, dict[str, Any]]:
    code, out, err = answer
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["notes"] == []
    return {row["policy"]: row for row in document["rows"]}


def test_each_policy_has_its_row_of_sums(lowtide: Lowtide) -> None:
    found = rows(lowtide("simulate", *SHORT, "--json"))
    assert list(found) == ["now", "threshold", "window", "slots", "greedy", "optimal"]
    # By hand for a kilowatt in 300 100 200 50 400 100, four times: at once 400, best stretch 250, best hours 150.
    assert {name: round(row["emissions_g"], 6) for name, row in found.items()} == {
        "now": 1600,
        "threshold": 600,
        "window": 1000,
        "slots": 600,
        "greedy": 600,
        "optimal": 600,
    }
    assert found["optimal"] == {
        "policy": "optimal",
        "runs": 4,
        "emissions_g": pytest.approx(600),
        "energy_j": pytest.approx(4 * 2 * 3.6e6),
        "saved_percent": pytest.approx(62.5),
        "mean_wait_h": pytest.approx(2),
        "missed_deadlines": 0,
        "switches": 4,
    }


def test_a_forecast_column_is_planned_by_and_the_actual_one_charged(lowtide: Lowtide) -> None:
    """The wrong column is the right one upside down: the best hours by it are the worst there are."""
    found = rows(lowtide("simulate", *SHORT, "--forecast-column", "wrong_g", "--policies", "slots,now", "--json"))
    assert found["slots"]["emissions_g"] == pytest.approx(4 * 700)
    assert found["slots"]["saved_percent"] == pytest.approx(-75)
    assert found["now"]["saved_percent"] == pytest.approx(0)


def test_worker_counts_come_from_the_profile(lowtide: Lowtide) -> None:
    of = (*SHORT, "--profile", "profile.yaml", "--model", "small", "--policies", "now", "--json")
    # 2 h of one worker at 200 g/kWh on average are 40 g; two workers need 1.05 h, at 300 g/kWh mostly.
    assert rows(lowtide("simulate", *of, "--workers", "1"))["now"]["emissions_g"] == pytest.approx(4 * 40)
    assert rows(lowtide("simulate", *of, "--workers", "2..3"))["now"]["energy_j"] == pytest.approx(4 * 190 * 7200 / 1.9)
    assert rows(lowtide("simulate", *of))["now"]["emissions_g"] == pytest.approx(4 * 40)
    missed = rows(lowtide("simulate", *of, "--workers", "1", "--deadline", "1h"))["now"]
    assert (missed["missed_deadlines"], missed["runs"]) == (4, 4)


def test_the_table_and_the_page_show_the_policies(folder: Path, lowtide: Lowtide) -> None:
    code, out, err = lowtide("simulate", *SHORT, "--html", "page.html", "--policies", "now,optimal")
    assert (code, err) == (0, "")
    assert re.search(r"optimal +4 +600 g +62\.50 %", out)
    html = (folder / "page.html").read_text()
    assert "62.5 % less with optimal" in html and "<svg" in html
    assert not re.search(r"(src|href)=\"http|<script|@import", html)


def test_unknown_hours_are_told(folder: Path, lowtide: Lowtide) -> None:
    trace = ("--trace", "LOW=low.csv", "--length", "2h", "--deadline", "2h", "--every", "2h", "--policies", "now")
    code, out, _ = lowtide("simulate", *trace, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["rows"][0]["emissions_g"] == pytest.approx(20)
    assert "up to 1.0 h of a policy's runs have no intensity" in document["notes"][0]


REFUSED = [
    ((), "--trace: is missing; give a recorded grid"),
    (("--trace", "de.csv"), "--trace: 'de.csv' is not ZONE=FILE; write e.g. DE=de.csv"),
    (("--trace", "DE=no.csv"), "no.csv: cannot be read"),
    (("--trace", "DE=de.csv", "--trace", "DE=de.csv"), "--trace: DE is given twice"),
    ((*SHORT, "--actual-column", "g"), "de.csv: line 1: has no column g; its columns are start_utc, g_per_kwh"),
    ((*SHORT, "--policies", "optmal"), "--policies: 'optmal' is no policy; did you mean 'optimal'?"),
    ((*SHORT, "--policies", ","), "--policies: names none"),
    ((*SHORT, "--length", "24"), "--length: '24' is not an amount with its unit"),
    ((*SHORT, "--every", "0h"), "--every: '0h' is not above zero"),
    ((*SHORT, "--pause-cost", "x"), "--pause-cost: 'x' is not an amount with its unit"),
    ((*SHORT, "--deadline", "99h"), "--deadline: no start has its deadline of 99h within the traces"),
    ((*SHORT, "--model", "small"), "--model: needs --profile FILE"),
    ((*SHORT, "--profile", "profile.yaml"), "--model: is missing; profile.yaml holds small, other"),
    ((*SHORT, "--profile", "profile.yaml", "--model", "smal"), "did you mean 'small'?"),
    ((*SHORT, "--profile", "profile.yaml", "--model", "small", "--workers", "5..8"), "--workers: the profile has none"),
    ((*SHORT, "--workers", "8..1"), "--workers: '8..1' is not a worker count"),
    ((*SHORT, "--html", "no/page.html"), "--html: no/page.html cannot be written"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[says[:40] for _, says in REFUSED])
def test_wrong_input_is_one_line_and_exit_2(lowtide: Lowtide, arguments: tuple[str, ...], says: str) -> None:
    code, out, err = lowtide("simulate", *arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("lowtide: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("small: 3\n", "profile.yaml: small: is no mapping"),
        ("small: {1: {throughput: 0, power_w: 1}}\n", "profile.yaml: small: 1.throughput: "),
        ("small: {one: {throughput: 1, power_w: 1}}\n", "profile.yaml: small: one"),
        ("small: {2: {throughput: 1, power_w: 1}}\n", "--profile: has no figures of 1 worker"),
        ("small: {1: {throughput: 1}}\n", "profile.yaml: small: 1.power_w: is missing"),
    ],
)
def test_a_wrong_profile_is_one_line_and_exit_2(folder: Path, lowtide: Lowtide, text: str, says: str) -> None:
    (folder / "profile.yaml").write_text(text)
    code, _, err = lowtide("simulate", *SHORT, "--profile", "profile.yaml", "--model", "small")
    assert code == 2
    assert says in err and err.count("\n") == 1


FLEET = ("--trace", "DE=de.csv", "--capacity", "DE=1", "--pause-cost", "0", "--jobs", "jobs.csv")
JOBS = """submit_utc,length,deadline,priority,profile,workers
2022-03-01T00:00:00Z,2h,6h,,,
2022-03-01T00:00:00Z,1h,2022-03-01T06:00:00Z,1,,1..2
"""


def test_a_fleet_of_a_file_shares_the_gpus(folder: Path, lowtide: Lowtide) -> None:
    (folder / "jobs.csv").write_text(JOBS)
    code, out, err = lowtide("simulate", *FLEET, "--policies", "now,slots,optimal", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    # 300 100 200 50 400 100 by hand: at once 600; the one of priority takes 50, and leaves 100 and 100.
    found = {row["policy"]: (row["runs"], round(row["emissions_g"], 3)) for row in document["rows"]}
    assert found == {"now": (2, 600), "slots": (2, 250), "optimal": (2, 250)}
    assert document["fleet"]["bound_g"] == pytest.approx(250, rel=1e-3)
    code, out, _ = lowtide("simulate", *FLEET, "--policies", "now,optimal", "--html", "page.html")
    assert code == 0
    assert re.search(r"2 jobs of jobs.csv, in DE \(1 GPUs\)", out) and "Proven: no plans that meet" in out
    assert "jobs.csv" in (folder / "page.html").read_text()


ROW = "2022-03-01T00:00:00Z,2h,6h"
WRONG = [
    ("submit,length,deadline\n", "jobs.csv: line 1: 'submit' is no column of it; did you mean 'submit_utc'?"),
    ("submit_utc,length\n", "jobs.csv: line 1: has no column deadline"),
    ("submit_utc,length,deadline\n", "jobs.csv: line 2: holds no job"),
    ("submit_utc,length,deadline\n,2h,6h\n", "jobs.csv: line 2: submit_utc: is missing"),
    (f"submit_utc,length,deadline\n{ROW},7\n", "jobs.csv: line 2: has more values than line 1 has columns"),
    ("submit_utc,length,deadline\n2022-03-01T00:00:00Z,2,6h\n", "jobs.csv: line 2: length: '2' is not an amount"),
    ("submit_utc,length,deadline\n2022-03-01T00:00:00Z,2h,2022-02-01T00:00:00Z\n", "line 2: deadline: "),
    ("submit_utc,length,deadline\n2021-03-01T00:00:00Z,2h,6h\n", "line 2: submit_utc: the traces begin later"),
    ("submit_utc,length,deadline\n2022-03-01T00:00:00Z,2h,9d\n", "line 2: deadline: the traces end sooner"),
    (f"submit_utc,length,deadline,profile\n{ROW},small\n", "line 2: profile: needs --profile FILE"),
    (f"submit_utc,length,deadline,workers\n{ROW},2..4\n", "line 2: workers: the profile has none of 2..4"),
    (f"submit_utc,length,deadline,priority\n{ROW},high\n", "line 2: priority: 'high' is no whole number"),
    (f"submit_utc,length,deadline,gpus_per_worker\n{ROW},0\n", "line 2: gpus_per_worker: '0' is no count of GPUs"),
    (f"submit_utc,length,deadline,gpus_per_worker\n{ROW},2\n", "line 2: gpus_per_worker: needs 2 GPUs at once"),
]


@pytest.mark.parametrize(("text", "says"), WRONG, ids=[says[:40] for _, says in WRONG])
def test_a_wrong_file_of_jobs_is_one_line_and_exit_2(folder: Path, lowtide: Lowtide, text: str, says: str) -> None:
    (folder / "jobs.csv").write_text(text)
    code, out, err = lowtide("simulate", *FLEET)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--capacity", "DE=1"), "--capacity: needs --jobs"),
        (("--jobs", "jobs.csv", "--capacity", "DE"), "--capacity: 'DE' is not ZONE=GPUS"),
        (("--jobs", "jobs.csv", "--capacity", "FR=1"), "--capacity: 'FR' is no zone of --trace; there are DE"),
        (("--jobs", "jobs.csv", "--model", "small"), "--model: is not for --jobs"),
        (("--jobs", "jobs.csv", "--length", "2h"), "--length: is not for --jobs"),
    ],
)
def test_wrong_options_of_a_fleet_are_one_line(lowtide: Lowtide, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = lowtide("simulate", "--trace", "DE=de.csv", *arguments)
    assert code == 2
    assert says in err and err.count("\n") == 1
