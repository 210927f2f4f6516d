"""Loads tasks in a process of its own, whose hub is the one that HF_ENDPOINT names; see ``tests.hub.asking``.

One JSON line in: a list of requests, each a task's overrides and the splits that are wanted. One JSON line out: for each
split the pairs, or for a request what the user is told.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from hydra.utils import instantiate

from pipelines.cli import UserError
from tests.conf import composed


def load(overrides: list[str], splits: list[str]) -> dict[str, Any] | str:
    try:
        task = instantiate(composed("evaluate", *overrides).task)
        return {split: [[row["source"], row["target"]] for row in task.load(split)] for split in splits}
    except UserError as error:
        return str(error)


if __name__ == "__main__":
    print(json.dumps([load(*request) for request in json.loads(sys.stdin.readline())]))
