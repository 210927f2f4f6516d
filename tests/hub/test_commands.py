"""The README's commands on the hub's names, over HTTP and unpatched: fine-tune, align, evaluate."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.hub import data, models
from tests.hub.asking import environment
from tests.hub.server import LocalHub

SHORT = ["train.max_steps=2", "train.batch_size=2", "train.evaluate_every=2", "train.save_every=2", "device=cpu"]
BRIEF = ["task.source_length=24", "task.target_length=4", "device=cpu"]


def test_t5_and_xsum_from_the_hub_to_a_result(hub: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "datasets"
    folder.mkdir()
    data.DATASETS["EdinburghNLP/xsum"](folder)
    hub.publish("datasets", "EdinburghNLP/xsum", folder)
    for name in ("google-t5/t5-small", "google-t5/t5-base"):
        models.original(hub, name, tmp_path / name)
    pair = ["large=t5-base", "small=t5-small", "task=xsum", *BRIEF]
    commands = [
        ["finetune", "model=t5-small", "task=xsum", *SHORT, *BRIEF],
        ["align", *pair, *SHORT],
        ["evaluate", *pair, "bild.fallback=0.5", "limit=2", "latency_limit=1"],
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.commands"],
        input=json.dumps(commands) + "\n",
        cwd=tmp_path,
        env=environment(hub, tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    tuned = tmp_path / "checkpoints" / "xsum"
    steps = {name: json.loads((tuned / name / "manifest.json").read_text())["step"] for name in TUNED}
    assert steps == dict.fromkeys(TUNED, 2)


TUNED = ("t5-small", "t5-small-aligned")
