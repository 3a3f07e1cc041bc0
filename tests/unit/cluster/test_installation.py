"""A worker refuses modules that are not this installation's.
In: a folder that shadows `jobs` in a Python of its own. Out: nothing.
The segments' integration test has it on a real worker.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cluster.installation import check, guarded


def test_accepts_its_own_modules() -> None:
    check()
    assert guarded("json", "dumps")({"obj": [1]}) == "[1]"


def test_names_both_places_of_a_shadowed_module(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").touch()
    source = Path(check.__code__.co_filename).read_text()
    ran = subprocess.run(
        [sys.executable, "-c", f"{source}\ncheck()"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: the module 'jobs' comes from") and str(tmp_path) in last
