"""Never, always and sometimes accepted: hand-made models, with every token, count and reason spelled out."""

from __future__ import annotations

import pytest

import bild
from bild.types import RowStats
from tests.bild.fakes import EOS, START, counting, reasons, run, scripted, told

VOCAB = 20


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
    assert reasons(traces[0]) == ["large"] * 3
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
