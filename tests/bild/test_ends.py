"""How a row ends: EOS, the length limit, and the difference that the authors' rule makes; hand-made models."""

from __future__ import annotations

import pytest

import bild
from bild.types import RowStats
from tests.bild.fakes import EOS, START, counting, reasons, run, scripted, told

VOCAB = 20


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
    assert reasons(traces[0]) == ["draft", "draft"]
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
    assert reasons(traces[0]) == ["draft", "draft"]


def test_verify_eos_replaces_a_premature_end():
    small = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}, (2, 3): {EOS: 0.9}}, VOCAB)
    large = scripted({(): {2: 0.9}, (2,): {3: 0.9}, (2, EOS): {7: 0.9}, (2, 3): {EOS: 0.9}, (2, 3, EOS): {}}, VOCAB)
    policy = bild.BigLittle(verify_eos=True, rollback=1.0)
    written, stats, traces, _ = run(large, small, policy, vocab_size=VOCAB, max_new_tokens=9)
    assert written == [[2, 3, EOS]]
    assert stats == [
        RowStats(rounds=2, drafted=3, accepted=2, rolled_back=1, fallbacks=0, small_steps=3, large_steps=2, tokens=3)
    ]
    assert reasons(traces[0]) == ["draft", "discarded", "rollback", "draft"]


@pytest.mark.parametrize("reason", ["bonus", "rollback", "fallback", "large"])
def test_an_eos_of_the_large_model_ends_the_row(reason):
    large = scripted({(): {2: 0.9}, (2,): {EOS: 0.9}, (2, 3): {4: 0.9}}, VOCAB)
    small = scripted({(): {2: 0.9}, (2,): {3: 0.5}, (2, 3): {4: 0.4}}, VOCAB)
    policy = {
        "bonus": bild.BigLittle(draft_length=1),
        "rollback": bild.BigLittle(fallback=0.45),
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
    assert reasons(traces[0]) == ["draft", "draft", "discarded", "discarded", "rollback", "draft"]


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
    assert reasons(traces[0]) == ["large", "discarded", "discarded", "rollback", "large", "draft"]


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
    assert reasons(traces[0]) == ["large", "draft", "draft", "draft"]


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
