"""The round loop on hand-made models, where every accepted token, count and reason is spelled out."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass

import pytest
import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

import bild
from bild.policies.rollback import first_true, is_drafted
from bild.types import DecodeOutput, RowStats, Verdict
from tests.bild.fakes import EOS, START, counting, run, scripted, told

VOCAB = 20


def written_by(trace) -> list[str]:
    return [entry.reason for entry in trace]


# Always, never, sometimes


def test_always_accepted():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.8)
    policy = bild.BigLittle(fallback=0.6, rollback=2.0, draft_length=3)
    written, stats, traces, runners = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=8)
    assert written == [[2, 3, 4, 5, 6, 7, 8, 9]]
    assert stats == [
        RowStats(
            rounds=2, drafted=6, accepted=6, rolled_back=0, fallbacks=0, small_steps=6, large_steps=2, tokens=8
        )
    ]  # fmt: skip
    assert told(traces[0]) == [
        (0, 2, "small", "draft"), (0, 3, "small", "draft"), (0, 4, "small", "draft"), (0, 5, "large", "bonus"),
        (1, 6, "small", "draft"), (1, 7, "small", "draft"), (1, 8, "small", "draft"), (1, 9, "large", "bonus"),
    ]  # fmt: skip
    assert [entry.confidence for entry in traces[0]] == pytest.approx([0.8, 0.8, 0.8, 0.9] * 2)
    assert runners["large"].passes == 2
    assert runners["small"].passes == 6


def test_never_accepted():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.8, offset=2)
    policy = bild.BigLittle(fallback=0.6, rollback=2.0, draft_length=2)
    written, stats, traces, _ = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=3)
    assert written == [[2, 3, 4]]
    # The last round has room for one drafted token only.
    assert stats == [
        RowStats(rounds=3, drafted=5, accepted=0, rolled_back=5, fallbacks=0, small_steps=5, large_steps=3, tokens=3)
    ]
    assert told(traces[0]) == [
        (0, 3, "small", "discarded"), (0, 5, "small", "discarded"), (0, 2, "large", "rollback"),
        (1, 4, "small", "discarded"), (1, 6, "small", "discarded"), (1, 3, "large", "rollback"),
        (2, 5, "small", "discarded"), (2, 4, "large", "rollback"),
    ]  # fmt: skip


def test_never_drafted_because_unsure():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.5)
    written, stats, traces, _ = run(large, small, bild.BigLittle(), vocab_size=VOCAB, max_new_tokens=3)
    assert written == [[2, 3, 4]]
    assert stats == [
        RowStats(rounds=3, drafted=0, accepted=0, rolled_back=0, fallbacks=3, small_steps=3, large_steps=3, tokens=3)
    ]
    assert told(traces[0]) == [(turn, 2 + turn, "large", "fallback") for turn in range(3)]


def test_never_drafted_because_told_so():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.5)
    written, stats, traces, runners = run(
        large, small, bild.BigLittle(fallback=1.1), vocab_size=VOCAB, max_new_tokens=3
    )
    assert written == [[2, 3, 4]]
    assert stats == [
        RowStats(rounds=3, drafted=0, accepted=0, rolled_back=0, fallbacks=0, small_steps=0, large_steps=3, tokens=3)
    ]
    assert written_by(traces[0]) == ["large"] * 3
    assert runners["small"].passes == 0


SMALL = {
    (): {2: 0.9},
    (2,): {3: 0.8},
    (2, 3): {4: 0.7},
    (2, 5): {6: 0.3},
    (2, 5, 6): {7: 0.91},
    (2, 5, 6, 7): {8: 0.92},
    (2, 5, 6, 7, 8): {9: 0.93},
    (2, 5, 6, 7, 8, 9): {},
    (2, 5, 6, 7, 8, 9, 10): {EOS: 0.94},
}
LARGE = {
    (): {2: 0.9},
    (2,): {5: 0.85},
    (2, 3): {4: 0.9},
    (2, 3, 4): {4: 0.9},
    (2, 5): {6: 0.75},
    (2, 5, 6): {7: 0.5, 8: 0.45},
    (2, 5, 6, 7): {9: 0.8, 8: 0.15},
    (2, 5, 6, 7, 8): {9: 0.9},
    (2, 5, 6, 7, 8, 9): {10: 0.95},
}


def test_sometimes_accepted():
    """A rollback, a fallback, a disagreement under the threshold (-log 0.15 = 1.9), a bonus, an unverified EOS."""
    policy = bild.BigLittle(fallback=0.6, rollback=2.0, draft_length=3)
    written, stats, traces, runners = run(
        scripted(LARGE, VOCAB), scripted(SMALL, VOCAB), policy, vocab_size=VOCAB, max_new_tokens=20
    )
    assert written == [[2, 5, 6, 7, 8, 9, 10, EOS]]
    assert stats == [
        RowStats(rounds=4, drafted=7, accepted=5, rolled_back=2, fallbacks=1, small_steps=8, large_steps=3, tokens=8)
    ]
    assert told(traces[0]) == [
        (0, 2, "small", "draft"), (0, 3, "small", "discarded"), (0, 4, "small", "discarded"),
        (0, 5, "large", "rollback"),
        (1, 6, "large", "fallback"),
        (2, 7, "small", "draft"), (2, 8, "small", "draft"), (2, 9, "small", "draft"), (2, 10, "large", "bonus"),
        (3, EOS, "small", "draft"),
    ]  # fmt: skip
    assert [entry.confidence for entry in traces[0]] == pytest.approx(
        [0.9, 0.8, 0.7, 0.85, 0.75, 0.91, 0.92, 0.93, 0.95, 0.94]
    )
    # Both caches hold what stands and nothing else.
    assert runners["large"].cached == [[START, 2, 5, 6, 7, 8, 9]]
    assert runners["small"].cached == [[START, 2, 5, 6, 7, 8, 9, 10]]


def test_a_full_length_draft_leaves_the_small_model_two_tokens_behind():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.8)
    seen: list[int] = []

    def watched(prefix):
        seen.append(len(prefix))
        return small(prefix)

    policy = bild.BigLittle(fallback=0.6, rollback=2.0, draft_length=2)
    run(large, watched, policy, vocab_size=VOCAB, max_new_tokens=7)
    # Start and 2; then 3 (drafted last), 4 (the bonus) at once, 5; then 6, 7 and the end.
    assert seen == [1, 2, 3, 4, 5, 6, 7]


# The end of a row


def test_a_drafted_eos_ends_the_row_unverified():
    small = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}}, VOCAB)
    written, stats, traces, runners = run(
        scripted({}, VOCAB), small, bild.BigLittle(), vocab_size=VOCAB, max_new_tokens=9
    )
    assert written == [[2, EOS]]
    assert stats == [
        RowStats(rounds=1, drafted=2, accepted=2, rolled_back=0, fallbacks=0, small_steps=2, large_steps=0, tokens=2)
    ]
    assert written_by(traces[0]) == ["draft", "draft"]
    assert runners["large"].passes == 0


def test_verify_eos_accepts_a_tail_and_adds_nothing():
    small = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}}, VOCAB)
    large = scripted({(): {2: 0.9}, (2,): {EOS: 0.6}, (2, EOS): {7: 0.9}}, VOCAB)
    policy = bild.BigLittle(verify_eos=True)
    written, stats, traces, _ = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=9)
    assert written == [[2, EOS]]
    assert stats == [
        RowStats(rounds=1, drafted=2, accepted=2, rolled_back=0, fallbacks=0, small_steps=2, large_steps=1, tokens=2)
    ]
    assert written_by(traces[0]) == ["draft", "draft"]


def test_verify_eos_replaces_a_premature_end():
    small = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}, (2, 3): {EOS: 0.9}}, VOCAB)
    large = scripted({(): {2: 0.9}, (2,): {3: 0.9}, (2, EOS): {7: 0.9}, (2, 3): {EOS: 0.9}, (2, 3, EOS): {}}, VOCAB)
    policy = bild.BigLittle(verify_eos=True, rollback=1.0)
    written, stats, traces, _ = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=9)
    assert written == [[2, 3, EOS]]
    assert stats == [
        RowStats(rounds=2, drafted=3, accepted=2, rolled_back=1, fallbacks=0, small_steps=3, large_steps=2, tokens=3)
    ]
    assert written_by(traces[0]) == ["draft", "discarded", "rollback", "draft"]


@pytest.mark.parametrize("reason", ["bonus", "rollback", "fallback", "large"])
def test_an_eos_of_the_large_model_ends_the_row(reason):
    large = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}, (2, 3): {4: 0.9}}, VOCAB)
    small = scripted({(): {2: 0.9}, (2,): {3: 0.5}, (2, 3): {4: 0.4}}, VOCAB)
    policy = {
        "bonus": bild.BigLittle(draft_length=1),
        "rollback": bild.BigLittle(fallback=0.5),
        "fallback": bild.BigLittle(fallback=0.6),
        "large": bild.LargeOnly(),
    }[reason]
    written, _, traces, _ = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=9)
    assert written == [[2, EOS]]
    assert traces[0][-1].reason == reason


def test_every_id_of_an_eos_list_ends_a_row():
    small = counting(VOCAB, sure=0.9)
    larges = [counting(VOCAB, sure=0.9)] * 2
    for eos, expected in (((5,), [2, 3, 4, 5]), ((9, 4), [2, 3, 4]), ((3, 4), [2, 3]), ((), [2, 3, 4, 5, 6, 7])):
        for policy in (bild.BigLittle(), bild.BigLittle(verify_eos=True), bild.SmallOnly(), bild.LargeOnly()):
            written, _, _, _ = run(larges, [small] * 2, policy, vocab_size=VOCAB, max_new_tokens=6, eos=eos)
            assert written == [expected] * 2, (eos, policy)


@pytest.mark.parametrize("rollback", [0.0, 2.0])
def test_one_token_is_drafted_and_verified_without_a_bonus(rollback):
    agreed = run(
        counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9), bild.BigLittle(rollback=rollback), vocab_size=VOCAB,
        max_new_tokens=1,
    )  # fmt: skip
    assert agreed[0] == [[2]]
    assert agreed[1] == [
        RowStats(rounds=1, drafted=1, accepted=1, rolled_back=0, fallbacks=0, small_steps=1, large_steps=1, tokens=1)
    ]
    replaced = run(
        counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9, offset=3), bild.BigLittle(rollback=rollback),
        vocab_size=VOCAB, max_new_tokens=1,
    )  # fmt: skip
    assert replaced[0] == [[2]]
    assert replaced[1] == [
        RowStats(rounds=1, drafted=1, accepted=0, rolled_back=1, fallbacks=0, small_steps=1, large_steps=1, tokens=1)
    ]


def test_a_draft_that_reaches_the_limit_is_verified():
    """Four tokens fit; the small model drafts them all, the large model replaces the third, and one more fits."""
    small = scripted({(): {2: 0.9}, (2,): {3: 0.9}, (2, 3): {4: 0.9}, (2, 3, 4): {5: 0.9}, (2, 3, 7): {8: 0.9}}, VOCAB)
    large = scripted(
        {(): {2: 0.9}, (2,): {3: 0.9}, (2, 3): {7: 0.9}, (2, 3, 4): {}, (2, 3, 4, 5): {}, (2, 3, 7): {8: 0.9},
         (2, 3, 7, 8): {}},
        VOCAB,
    )  # fmt: skip
    written, stats, traces, _ = run(large, small, bild.BigLittle(), vocab_size=VOCAB, max_new_tokens=4)
    assert written == [[2, 3, 7, 8]]
    assert stats == [
        RowStats(rounds=2, drafted=5, accepted=3, rolled_back=2, fallbacks=0, small_steps=5, large_steps=2, tokens=4)
    ]
    assert written_by(traces[0]) == ["draft", "draft", "discarded", "discarded", "rollback", "draft"]


def test_an_eos_at_the_limit():
    model = counting(VOCAB, sure=0.9)
    for policy in (bild.BigLittle(), bild.BigLittle(verify_eos=True), bild.LargeOnly(), bild.SmallOnly()):
        written, stats, _, _ = run(model, model, policy, vocab_size=VOCAB, max_new_tokens=3, eos=(4,))
        assert written == [[2, 3, 4]]
        assert stats[0].tokens == 3


# The authors' loop


def test_authors_the_large_model_writes_first_and_goes_again_after_a_rollback():
    small = scripted(
        {(): {}, (2,): {3: 0.9}, (2, 3): {4: 0.9}, (2, 5): {}, (2, 5, 6): {7: 0.9}, (2, 5, 6, 7): {EOS: 0.9}}, VOCAB
    )
    large = scripted({(): {2: 0.9}, (2,): {5: 0.9}, (2, 3): {}, (2, 3, 4): {}, (2, 5): {6: 0.9}}, VOCAB)
    policy = bild.BigLittle(rule="authors", draft_length=2, fallback=0.5)
    written, stats, traces, runners = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=20)
    assert written == [[2, 5, 6, 7, EOS]]
    assert stats == [
        RowStats(rounds=4, drafted=4, accepted=2, rolled_back=2, fallbacks=0, small_steps=4, large_steps=3, tokens=5)
    ]
    assert told(traces[0]) == [
        (0, 2, "large", "large"),
        (1, 3, "small", "discarded"), (1, 4, "small", "discarded"), (1, 5, "large", "rollback"),
        (2, 6, "large", "large"),
        (3, 7, "small", "draft"), (3, EOS, "small", "draft"),
    ]  # fmt: skip
    assert runners["large"].cached == [[START, 2, 5]]


def test_authors_an_eos_of_a_rollback_does_not_end_the_row():
    small = scripted({(): {}, (2,): {3: 0.9}, (2, 3): {4: 0.9}, (2, EOS): {}, (2, EOS, 6): {EOS: 0.9}}, VOCAB)
    large = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}, (2, 3): {}, (2, 3, 4): {}, (2, EOS): {6: 0.9}}, VOCAB)
    policy = bild.BigLittle(rule="authors", draft_length=2, fallback=0.5)
    written, _, traces, _ = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=20)
    assert written == [[2, EOS, 6, EOS]]
    assert written_by(traces[0]) == ["large", "discarded", "discarded", "rollback", "large", "draft"]


def test_authors_an_eos_of_the_large_model_ends_the_row_otherwise():
    large = scripted({(): {EOS: 0.9}}, VOCAB)
    policy = bild.BigLittle(rule="authors")
    assert run(large, scripted({}, VOCAB), policy, vocab_size=VOCAB, max_new_tokens=9)[0] == [[EOS]]
    large = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}}, VOCAB)
    unsure = scripted({(): {}, (2,): {3: 0.2}}, VOCAB)
    assert run(large, unsure, policy, vocab_size=VOCAB, max_new_tokens=9)[0] == [[2, EOS]]


def test_authors_a_draft_that_reaches_the_limit_ends_unverified():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9, offset=3)
    policy = bild.BigLittle(rule="authors", draft_length=9)
    written, stats, traces, _ = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=4)
    assert written == [[2, 5, 8, 11]]
    assert stats == [
        RowStats(rounds=2, drafted=3, accepted=3, rolled_back=0, fallbacks=0, small_steps=3, large_steps=1, tokens=4)
    ]
    assert written_by(traces[0]) == ["large", "draft", "draft", "draft"]


# Rows of a batch


def test_a_closed_row_is_left_alone_while_others_go_on():
    model = counting(VOCAB, sure=0.9)
    ends = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}}, VOCAB)
    fed = {"large": 0, "small": 0}

    def counted(name, inner):
        def logits(prefix):
            fed[name] += 1
            return inner(prefix)

        return logits

    policy = bild.BigLittle(draft_length=3, fallback=0.5)
    written, stats, traces, runners = run(
        [model, counted("large", scripted({}, VOCAB))], [model, counted("small", ends)], policy, vocab_size=VOCAB,
        max_new_tokens=12,
    )  # fmt: skip
    assert written == [list(range(2, 14)), [2, EOS]]
    assert fed == {"large": 0, "small": 2}
    assert [count.rounds for count in stats] == [3, 1]
    assert len(traces[1]) == 2
    # What had ended before the last rounds is neither fed nor counted again.
    assert [count.large_steps for count in stats] == [3, 0]
    assert runners["small"].cached[1] == [START, 2]


def test_sequences_are_padded():
    model = counting(VOCAB, sure=0.9)
    ends = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}}, VOCAB)
    written, _, _, _ = run([model, model], [ends, model], bild.SmallOnly(), vocab_size=VOCAB, max_new_tokens=4)
    assert written == [[2, EOS], [2, 3, 4, 5]]


# What a policy may do that BigLittle never does


@dataclass(frozen=True)
class Reticent:
    """The large model replaces the first token that it would not have written, and otherwise writes nothing."""

    uses_small = uses_large = True
    max_draft = 2
    large_first = False
    verify_eos = verify_full = True

    def check(self, *, greedy):
        """Every mode is fine."""

    def stop(self, small_probs, n_drafted):
        return torch.zeros_like(n_drafted, dtype=torch.bool)

    def verify(self, draft, large, uniforms):
        choice = large.pick(uniforms)
        wrong = (choice[:, :-1] != draft.tokens) & is_drafted(draft)
        n_accepted = first_true(wrong, otherwise=draft.n_drafted)
        replacement = choice.gather(1, n_accepted.unsqueeze(-1)).squeeze(-1)
        return Verdict(
            n_accepted, torch.where(n_accepted < draft.n_drafted, replacement, -1), torch.zeros_like(draft.stopped)
        )


def test_a_policy_may_write_nothing_after_a_draft():
    large, small = counting(VOCAB, sure=0.9), counting(VOCAB, sure=0.9)

    def wavering(prefix):
        return (small if len(prefix) != 6 else counting(VOCAB, sure=0.9, offset=2))(prefix)

    written, stats, traces, _ = run(large, wavering, Reticent(), vocab_size=VOCAB, max_new_tokens=9)
    assert written == [list(range(2, 11))]
    assert written_by(traces[0]) == ["draft"] * 5 + ["discarded", "rollback"] + ["draft"] * 3
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
    assert written_by(traces[0]) == ["draft"] * 3 + ["discarded"] * 3


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
    bild.write_json_lines(DecodeOutput(torch.tensor(written), stats, traces), file)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["stats"] for row in rows] == [asdict(count) for count in stats]
    assert [[entry["token_id"] for entry in row["trace"]] for row in rows] == written
    assert rows[0]["trace"][0] == {
        "token_id": 2, "model": "small", "round": 0, "confidence": pytest.approx(0.9), "reason": "draft",
    }  # fmt: skip
