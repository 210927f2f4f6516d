"""The random pair of the evaluation's tests, a file of rows, and times that depend on nothing but the point."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import calibrate
from pipelines.decoding.rows import kept_tokens
from pipelines.evaluation import latency
from pipelines.evaluation.timings import Timing
from tests.commits import committed_during
from tests.conf import composed
from tests.evaluation.conftest import SOURCES, models, pair_folder, tokenizer

__all__ = ["models", "pair_folder", "tokenizer"]

ROWS = 32
GRID = "grid=[{_target_: bild.SmallOnly}, {_target_: bild.BigLittle, fallback: 0.02, rollback: [4.0, inf]}]"
LOSSLESS = "lossless=[{_target_: bild.BigLittle, fallback: 0.1, rollback: 0.0, verify_eos: true}]"
BESIDE = Path("checkpoints/made/large+small/policy.json")


def prepared(folder: Path, pair: Path) -> list[str]:
    """Write data into a folder; the overrides of a small calibration there, in which what is quick enough passes."""
    for start, split in enumerate(("validation", "test")):
        rows = [{"source": source, "target": SOURCES[-1]} for source in SOURCES[start * ROWS : (start + 1) * ROWS]]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*pair_words(pair), GRID, LOSSLESS, "max_drop=0.95", "bild.fallback=0.02", "bild.rollback=4"]


def pair_words(pair: Path) -> list[str]:
    """Overrides that every pipeline understands."""
    return [
        "task.name=made",
        "task.data_files={validation: validation.jsonl, test: test.jsonl}",
        "task.target_length=6",
        *(f"{role}.path={pair / role}" for role in ("large", "small")),
        *(f"{role}.name={role}" for role in ("large", "small")),
        "batch_size=8",
    ]


def timed_by_place(decoder, policy, name, inputs, row) -> Timing:
    """A point takes the less the later it stands in the grid, the large model alone the most."""
    out = decoder.run(policy, *decoder.pad([inputs[row]]), [row])
    return Timing(row, name, 100.0 - int(name) if name.isdigit() else 50.0, 1.0, kept_tokens(out.trace[0]))


def calibrated(*words: str, beside: Path = BESIDE) -> dict:
    """Run the command; what it leaves beside the pair."""
    calibrate.main(composed("calibrate", "latency_limit=2", *words))
    return json.loads(beside.read_text())


@pytest.fixture(autouse=True)
def steady_times(monkeypatch) -> None:
    monkeypatch.setattr(latency, "_time", timed_by_place)


@pytest.fixture
def words(pair_folder, tmp_path, monkeypatch) -> list[str]:
    """The overrides of a small calibration in the current folder."""
    monkeypatch.chdir(tmp_path)
    return prepared(tmp_path, pair_folder)


@pytest.fixture(scope="session")
def done(pair_folder, tmp_path_factory) -> SimpleNamespace:
    """A finished calibration: its folder, overrides and content."""
    folder = tmp_path_factory.mktemp("calibrated")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(latency, "_time", timed_by_place)
        committed_during(patched, latency, "measure")
        words = prepared(folder, pair_folder)
        return SimpleNamespace(folder=folder, words=words, content=calibrated(*words))
