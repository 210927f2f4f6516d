"""What the round loop offers to policies, criteria, streams and processors, on hand-made models."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, field

import pytest
import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

import bild
from bild.policies.base import Policy
from bild.policies.rollback import first_true, is_drafted
from bild.sampling import Sampler
from bild.types import DecodeOutput, RowStats, Verdict
from tests.bild.fakes import counting, reasons, run

VOCAB = 20


# What a policy may do that BigLittle never does


@dataclass(frozen=True)
class Reticent(Policy):
    """The large model replaces the first token that it would not have written, and otherwise writes nothing."""

    max_draft = 2

    def verify(self, draft, large, uniforms):
        choice = large.pick(uniforms)
        wrong = (choice[:, :-1] != draft.tokens) & is_drafted(draft)
        n_accepted = first_true(wrong, otherwise=draft.n_drafted)
        replacement = choice.gather(1, n_accepted.unsqueeze(-1)).squeeze(-1)
        return Verdict(n_accepted, torch.where(n_accepted < draft.n_drafted, replacement, -1))


def test_a_policy_may_write_nothing_after_a_draft():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9)

    def wavering(prefix):
        return (small if len(prefix) != 6 else counting(VOCAB, sure=0.9, offset=2))(prefix)

    written, stats, traces, _ = run(large, wavering, Reticent(), vocab_size=VOCAB, max_new_tokens=9)
    assert written == [list(range(2, 11))]
    assert reasons(traces[0]) == ["draft"] * 5 + ["discarded", "rollback"] + ["draft"] * 3
    assert stats == [
        RowStats(rounds=5, drafted=9, accepted=8, rolled_back=1, fallbacks=0, small_steps=9, large_steps=5, tokens=9)
    ]


# Stopping criteria, streaming, trace files


class EndsWith(StoppingCriteria):
    """Ends a row that ends with a token; notes every length it was shown."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.shown: list[int] = []

    def __call__(self, input_ids, scores, **kwargs):
        self.shown.append(input_ids.shape[1])
        return input_ids[:, -1] == self.token


def test_a_stopping_criterion_cuts_after_the_token_that_met_it():
    model = counting(VOCAB, sure=0.9)
    criterion = EndsWith(4)
    written, stats, traces, _ = run(
        model, model, bild.BigLittle(draft_length=6), vocab_size=VOCAB, max_new_tokens=14,
        criteria=StoppingCriteriaList([criterion]),
    )  # fmt: skip
    assert written == [[2, 3, 4]]
    assert criterion.shown == [2, 3, 4]
    # Six were drafted and verified; three of them stand, and none was rolled back.
    assert stats == [
        RowStats(rounds=1, drafted=6, accepted=3, rolled_back=0, fallbacks=0, small_steps=6, large_steps=1, tokens=3)
    ]
    assert reasons(traces[0]) == ["draft"] * 3 + ["discarded"] * 3


def test_a_draft_without_a_cap_ends_where_a_criterion_ends_the_row():
    models = [counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9, offset=2)]
    criterion = EndsWith(5)
    written, stats, traces, _ = run(
        None, models, bild.SmallOnly(), vocab_size=VOCAB, max_new_tokens=14, criteria=StoppingCriteriaList([criterion])
    )
    assert written == [[2, 3, 4, 5], [3, 5]]
    assert [(row.rounds, row.drafted, row.accepted, row.small_steps) for row in stats] == [(1, 4, 4, 4), (1, 2, 2, 2)]
    assert [reasons(trace) for trace in traces] == [["draft"] * 4, ["draft"] * 2]
    assert sorted(criterion.shown) == [2, 2, 3, 3, 4, 5]  # every token once


def test_a_text_is_cut_when_time_is_up_and_not_before():
    asked = []

    def slow(prefix):
        asked.append(prefix)
        return counting(VOCAB, sure=0.9)(prefix)

    class TimeIsUp(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([len(asked) >= 4])

    written, _, _, _ = run(
        None, slow, bild.SmallOnly(), vocab_size=VOCAB, max_new_tokens=14, criteria=StoppingCriteriaList([TimeIsUp()])
    )
    assert written == [[2, 3, 4, 5]]


@pytest.mark.parametrize(("threshold", "writer"), [(-0.5, "small"), (-0.05, "large")])
def test_a_text_is_scored_up_to_the_token_that_ends_it(threshold, writer):
    """What the small model would have written after it, unsure of each token, is nobody's text."""
    sure, unsure = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.1)
    written, stats, _, _ = run(
        sure, lambda prefix: (sure if len(prefix) < 5 else unsure)(prefix), bild.SequenceCascade(threshold=threshold),
        vocab_size=VOCAB, max_new_tokens=14, criteria=StoppingCriteriaList([EndsWith(5)]),
    )  # fmt: skip
    assert written == [[2, 3, 4, 5]]
    assert (stats[0].small_steps, stats[0].large_steps) == (4, 0 if writer == "small" else 4)


@dataclass(frozen=True, kw_only=True)
class Watched(bild.BigLittle):
    """Notes how many columns it is shown of the large model, and of the drafts."""

    shown: list[tuple[int, int]] = field(default_factory=list, compare=False)

    def verify(self, draft, large, uniforms):
        self.shown.append((large.raw.shape[1], draft.tokens.shape[1]))
        return super().verify(draft, large, uniforms)


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_settled_draft_takes_no_room_in_verification(do_sample):
    """Two rows: one drafts 7 tokens and ends them with EOS, unverified; the other falls back after two."""
    sure, unsure = counting(VOCAB, sure=0.99), counting(VOCAB, sure=0.3)
    smalls = [sure, lambda prefix: (sure if len(prefix) < 3 else unsure)(prefix)]
    policy = Watched(fallback=0.6, draft_length=9)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)] if do_sample else None
    given = {"vocab_size": VOCAB, "max_new_tokens": 12, "eos": (8,), "sampler": Sampler(do_sample=do_sample)}
    written, stats, _, _ = run([sure, sure], smalls, policy, generators=generators, **given)
    assert (written[0], stats[0].large_steps) == ([2, 3, 4, 5, 6, 7, 8], 0)
    assert policy.shown[0] == (3, 2)
    generators = [torch.Generator().manual_seed(1)] if do_sample else None
    assert written[1] == run(sure, smalls[1], policy, generators=generators, **given)[0][0]


def test_a_stopping_criterion_ends_only_the_row_that_met_it():
    models = [counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9, offset=2)]
    written, _, _, _ = run(
        models, models, bild.BigLittle(draft_length=2), vocab_size=VOCAB, max_new_tokens=6,
        criteria=StoppingCriteriaList([EndsWith(5)]),
    )  # fmt: skip
    assert written == [[2, 3, 4, 5], [3, 5]]
    written, _, _, _ = run(
        models, models, bild.BigLittle(draft_length=2), vocab_size=VOCAB, max_new_tokens=6,
        criteria=StoppingCriteriaList([EndsWith(4)]),
    )  # fmt: skip
    assert written == [[2, 3, 4], [3, 5, 7, 9, 11, 13]]


@pytest.mark.parametrize("rule", ["paper", "authors"])
def test_only_settled_tokens_are_shown(rule):
    """What has been shown is at all times a beginning of the final text."""
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9)

    def wavering(prefix):
        return (small if len(prefix) % 3 else counting(VOCAB, sure=0.9, offset=2))(prefix)

    shown: list[list[int]] = []
    written, stats, _, _ = run(
        large, wavering, bild.BigLittle(rule=rule, draft_length=4), vocab_size=VOCAB, max_new_tokens=15,
        on_settled=lambda tokens: shown.append(tokens.tolist()),
    )  # fmt: skip
    assert stats[0].rolled_back > 0
    assert list(itertools.chain(*shown)) == written[0]
    assert len(shown) == stats[0].rounds


def test_nan_logits_name_the_model_the_row_and_the_step():
    sound = counting(VOCAB, sure=0.9)

    def broken(prefix):
        return [float("nan")] * VOCAB if len(prefix) > 4 else sound(prefix)

    def overflowing(prefix):
        return [float("inf")] * VOCAB if len(prefix) > 4 else sound(prefix)

    def go(large, small):
        run(large, small, bild.BigLittle(draft_length=1), vocab_size=VOCAB, max_new_tokens=9)

    with pytest.raises(ValueError, match=r"small model's logits are NaN.*row 1 after 4 written tokens"):
        go([sound, sound], [sound, broken])
    with pytest.raises(ValueError, match=r"large model's logits are NaN.*row 0 after 5 written tokens"):
        go([broken, sound], [sound, sound])
    with pytest.raises(ValueError, match=r"infinite in row 0.*check its weights and dtype"):
        go([overflowing, sound], [sound, sound])


def test_logits_that_do_not_count_may_be_nan():
    """A model that falls apart beyond the row's end is never read there; the fakes poison what is meaningless."""
    sound = counting(VOCAB, sure=0.9)
    assert run(
        [sound, sound], [sound, counting(VOCAB, sure=0.3)], bild.BigLittle(), vocab_size=VOCAB, max_new_tokens=5
    )[0] == [[2, 3, 4, 5, 6]] * 2  # fmt: skip


def test_processors_see_exactly_the_tokens_before_each_position():
    seen: set[tuple[int, ...]] = set()

    class Watch:
        def __call__(self, input_ids, scores):
            seen.update(tuple(row) for row in input_ids.tolist())
            return scores

    models = [counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9, offset=2)]
    run(
        models, [models[0], counting(VOCAB, sure=0.9)], bild.BigLittle(draft_length=2), vocab_size=VOCAB,
        max_new_tokens=3, processors=LogitsProcessorList([Watch()]),
    )  # fmt: skip
    # Row 0: 2 and 3 are drafted, 4 is the bonus. Row 1: 3 replaces 2; 4 and 5 are drafted, 5 replaces 4; 6 is drafted.
    row_0 = {(0,), (0, 2), (0, 2, 3)}
    row_1 = {(0,), (0, 2), (0, 2, 3), (0, 3), (0, 3, 4), (0, 3, 4, 5), (0, 3, 5), (0, 3, 5, 6)}
    assert seen == row_0 | row_1


def test_trace_files_hold_one_object_per_row(tmp_path):
    model = counting(VOCAB, sure=0.9)
    written, stats, traces, _ = run([model] * 2, [model] * 2, bild.BigLittle(), vocab_size=VOCAB, max_new_tokens=4)
    file = tmp_path / "trace.jsonl"
    bild.write_json_lines(DecodeOutput(torch.tensor(written), stats, traces, [(), ("large",)], [4, 5], True), file)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["stats"] for row in rows] == [asdict(count) for count in stats]
    assert [[entry["token_id"] for entry in row["trace"]] for row in rows] == written
    assert [row["parted"] for row in rows] == [[], ["large"]]
    assert [row["small_steps_run"] for row in rows] == [4, 5]
    assert [row["drafted_at_once"] for row in rows] == [True, True]
    assert rows[0]["trace"][0] == {
        "token_id": 2, "model": "small", "round": 0, "confidence": pytest.approx(0.9), "reason": "draft",
        "layers": None,
    }  # fmt: skip
