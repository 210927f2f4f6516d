"""What captured graphs spare: launches and transfers of a round, captures of later calls, readings of a source."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import bild
from bild import decode, tensors, turn
from bild.engine import make_runner
from bild.engine.t5 import fixed
from tests.bild.models import sources, tiny_t5
from tests.bild.replayed import written

ON_THE_HOST = ("aten::lift_fresh", "aten::detach_", "aten::promote_types")  # all there is to a tensor of numbers


class Counted(TorchDispatchMode):
    """Operations of each round outside of what is replayed."""

    def __init__(self):
        super().__init__()
        self.rounds = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if not operation.is_view and operation._schema.name not in ON_THE_HOST:
            self.rounds[-1].append(operation._schema.name)
        return operation(*args, **({} if kwargs is None else kwargs))


BUDGET = {  # launches and transfers of a round, replays and reads apart; what a policy computes is most of it
    bild.LargeOnly(): 7,
    bild.BigLittle(fallback=0.3, rollback=1.0, draft_length=4): 25,
    bild.Speculative(draft_length=4): 19,
}


@pytest.mark.parametrize("policy", BUDGET, ids=str)
def test_what_a_round_asks_of_the_device_has_a_budget(tape, monkeypatch, policy):
    keywords = {"lengths": [4], "max_new_tokens": 20}
    written("graphs", policy, **keywords)
    counted, looks, transfers, own = Counted(), [], [], decode.Decoder.round

    def round_(self):
        counted.rounds.append([])
        with counted:
            return own(self)

    def noting(where, function):
        return lambda *asked: where.append(function) or function(*asked)

    monkeypatch.setattr(decode.Decoder, "round", round_)
    monkeypatch.setattr(decode, "to_host", noting(looks, tensors.to_host))
    for place in (decode, turn):
        monkeypatch.setattr(place, "sent", noting(transfers, tensors.sent))
    monkeypatch.setattr(fixed, "_fill", noting(transfers, fixed._fill))
    recorded, replayed = tape.recorded, tape.replayed
    out = written("graphs", policy, **keywords)
    rounds, models = out.stats[0].rounds, 1 + policy.uses_small
    assert tape.recorded == recorded  # whatever the second call comes to, the first one has prepared for
    assert tape.replayed - replayed <= (rounds + 1) * models
    assert len(looks) <= rounds + 1  # the verdict's, and a review's; a draft is looked at where it is replayed
    assert len(transfers) <= rounds * (models + 2) + 1
    assert max(map(len, counted.rounds[:-1])) <= BUDGET[policy], counted.rounds


@torch.no_grad()
@pytest.mark.parametrize("restarted", [[4], [5, 2, 1], [3, 0]])
def test_sources_go_to_their_rows_alone(tape, restarted):
    """Encoders are recorded for powers of two of sources, of a length of which each leaves a part empty."""
    first, mask = sources(3, [6, 1, 4, 9, 2, 5])
    later, later_mask = sources(4, [70, 3, 8][: len(restarted)])
    runners = [make_runner(tiny_t5(7), engine, 4) for engine in ("graphs", "static")]
    for runner in runners:
        runner.prefill(input_ids=first, attention_mask=mask)
        runner.restart(restarted, input_ids=later, attention_mask=later_mask)
    tokens = torch.arange(2, 14).view(6, 2)
    torch.testing.assert_close(*(runner.extend(tokens, [2] * 6) for runner in runners))


def test_texts_of_many_lengths_record_nothing_twice(tape):
    lengths = [3, 70, 150, 300, 600, 40, 65, 200, 400, 513]

    def write():
        for length in lengths:
            written("graphs", bild.LargeOnly(), lengths=[length], max_new_tokens=3)

    write()
    recorded = tape.recorded
    write()
    assert tape.recorded == recorded


def test_an_early_exit_reads_its_source_once(tape):
    models = tiny_t5(7), bild.EarlyExit(1)
    written("graphs", bild.Speculative(draft_length=4), models=models)
    encoders = [names for names in tape.names if names[0] == "aten::new_zeros"]
    assert len(encoders) == 1
