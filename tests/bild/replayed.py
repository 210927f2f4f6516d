"""Texts of the eager engine beside those of recorded and replayed steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import bild
from tests.bild.models import pair, sources

LENGTHS = [6, 1, 4]


@dataclass(frozen=True)
class Stopping(bild.Speculative):
    """With a stop rule."""

    rule: Any = None

    @property
    def stop_rule(self):
        return self.rule


@dataclass(frozen=True)
class After:
    """Stops by the number drafted."""

    count: int

    def __call__(self, small, n_drafted):
        return n_drafted >= self.count


COUNTING = Stopping(draft_length=7, rule=After(4))


def written(engine, policy, models=None, seed=3, lengths=LENGTHS, **keywords):
    large, small = pair(3) if models is None else models
    ids, mask = sources(seed, lengths)
    arguments = {"max_new_tokens": 12, "generator": torch.Generator().manual_seed(seed), "temperature": 1.3, **keywords}
    return bild.generate(large, small, ids, attention_mask=mask, policy=policy, engine=engine, **arguments)


def same(policy, **keywords) -> bool:
    eager, replayed = (written(engine, policy, **keywords) for engine in ("static", "graphs"))
    told = [[[(t.token_id, t.model, t.round, t.reason) for t in row] for row in out.trace] for out in (eager, replayed)]
    return eager.sequences.equal(replayed.sequences) and eager.stats == replayed.stats and told[0] == told[1]
