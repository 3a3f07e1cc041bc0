"""The shipped examples are valid specs, and the corpus and the model that they name can be built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import jobs
from jobs.data import corpus
from jobs.model import build
from jobs.spec import read_spec
from jobs.tokens import load, prepare

EXAMPLES = sorted((Path(jobs.__file__).parent / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_reads_and_its_data_and_model_can_be_built(example: Path, tmp_path: Path) -> None:
    shutil.copytree(example.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("some text to learn\n" * 2000)
    (tmp_path / "teacher").mkdir()
    spec = read_spec(tmp_path / example.name)
    if spec.script is not None:
        assert spec.script.asks and spec.script.folder == str(tmp_path)
        return
    assert spec.data is not None and spec.model is not None
    text = corpus(load(tmp_path, prepare(spec.data.files, spec.data.tokenizer, tmp_path)), spec.data)
    model = build(spec.model, text.vocab_size, spec.data.sequence_length, text.end_id, seed=0)
    assert model.config.vocab_size == 257
    if spec.distill is not None:
        assert spec.distill.teacher.path == str(tmp_path / "teacher")


def test_there_is_one_of_each_kind() -> None:
    assert [path.name for path in EXAMPLES] == ["distill.yaml", "llama-bytes.yaml", "script.yaml"]
