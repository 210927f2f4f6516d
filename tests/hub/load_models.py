"""Loads models in a process of its own, whose hub is the one that HF_ENDPOINT names; see ``tests.hub.asking``.

One JSON line in: a list of requests, each a command line's overrides and the role. One JSON line out: for each what was
loaded, or what the user is told.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pipelines.cli import UserError
from pipelines.decoding.config import instantiated
from pipelines.models import loading
from tests.conf import composed
from tests.hub.models import TEXTS, digest


def load(role: str, overrides: list[str]) -> dict[str, Any] | str:
    try:
        root, node = ("finetune", "model") if role == "finetune" else ("evaluate", role)
        found = loading.load(instantiated(composed(root, *overrides), node), "task", role)
    except UserError as error:
        return str(error)
    return {
        "class": type(found.model).__name__,
        "digest": digest(found.model.state_dict()),
        "dtype": str(found.model.dtype),
        "tokens": found.tokenizer(TEXTS[0])["input_ids"],
        "back": found.tokenizer.decode(found.tokenizer(TEXTS[0])["input_ids"], skip_special_tokens=True),
        "pad": found.tokenizer.pad_token,
        "note": found.note,
    }


if __name__ == "__main__":
    print(json.dumps([load(*request) for request in json.loads(sys.stdin.readline())]))
