"""The shipped pair, tiny shapes, and one quick run of every mode that all tests read."""

import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from benchmarks import latency

ROOT = Path(__file__).resolve().parents[2]
PAIR = [
    *("--large", str(ROOT / "checkpoints/pretrained/tiny-large")),
    *("--small", str(ROOT / "checkpoints/pretrained/tiny-small")),
    *("--data", str(ROOT / "benchmarks/data/toy_de_en-test.jsonl")),
]
QUICK = ["--bandwidth-bytes", "1000000", "--tokens", "8"]
SHAPE = "d_model=32,d_kv=8,d_ff=48,num_heads=2,num_layers=2,vocab_size=60"
WIDE = "t5:d_model=272,d_kv=64,d_ff=520,num_heads=5,num_layers=8,vocab_size=2100"
ENGINES = ["hf", "static", "static+int8"]
COMMANDS = {
    "pair": [*PAIR, "--limit", "2", "--target", "target", "--big-little", "0.6,2", "0.6,exact"],
    "inflate": [*PAIR, "--limit", "2", "--large-shape", WIDE, "--small-shape", WIDE, "--peers", "--engines", "static"],
    "batch": [*PAIR, "--limit", "3", "--batch-sizes", "1", "2", "--engines", "static"],
    "steps": [
        *("--shapes", f"t5:{SHAPE}", f"mt5:{SHAPE}", "--engines", *ENGINES),
        *("--widths", "8", "--shortlist", "12", "--repeats", "1"),
    ],
}


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    path: Path
    content: dict[str, Any]
    printed: str


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory):
    """The result of a mode's command, run once."""

    @cache
    def run(mode: str) -> Result:
        path = tmp_path_factory.mktemp(mode) / "new" / "result.json"
        printed = StringIO()
        with redirect_stdout(printed):
            latency.main([mode, *COMMANDS[mode], "--runs", "1", *QUICK, "--out", str(path)])
        return Result(path, json.loads(path.read_text()), printed.getvalue())

    return run
