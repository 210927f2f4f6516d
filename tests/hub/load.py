"""Loads tasks and models in a process of its own, from the hub that HF_ENDPOINT names; see ``tests.hub.asking``.

A request is ["task", overrides, splits], answered with the pairs of each split, or [role, overrides], answered with
what was loaded; or with what the user is told.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from hydra.utils import instantiate

from pipelines.cli import UserError
from pipelines.models import loading
from tests.conf import composed
from tests.hub.models import TEXTS, digest


def answer(kind: str, *request: Any) -> dict[str, Any] | str:
    try:
        return task(*request) if kind == "task" else model(kind, *request)
    except UserError as error:
        return str(error)


def task(overrides: list[str], splits: list[str]) -> dict[str, Any]:
    found = instantiate(composed("evaluate", *overrides).task)
    return {split: [[row["source"], row["target"]] for row in found.load(split)] for split in splits}


def model(role: str, overrides: list[str]) -> dict[str, Any]:
    root, node = ("finetune", "model") if role == "finetune" else ("evaluate", role)
    found = loading.load(instantiate(composed(root, *overrides)[node]), "task", role)
    return {
        "class": type(found.model).__name__,
        "digest": digest(found.model.state_dict()),
        "tokens": found.tokenizer(TEXTS[0])["input_ids"],
        "pad": found.tokenizer.pad_token,
        "note": found.note,
    }


if __name__ == "__main__":
    print(json.dumps([answer(*request) for request in json.loads(sys.stdin.readline())]))
