"""Scores equal the reference implementations', and can be resampled."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from pipelines.decoding import scoring

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "today", "3.5", "it's"]), max_size=9)
TEXTS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6)


@settings(max_examples=40)
@given(TEXTS)
def test_bleu_from_row_statistics_is_sacrebleus_corpus_score(pairs):
    texts, references = (["{}.".format(" ".join(words)) for words in side] for side in zip(*pairs, strict=True))
    expected = sacrebleu.corpus_bleu(texts, [references]).score
    assert scoring.score("bleu", texts, references).scores["bleu"] == pytest.approx(expected, abs=1e-9)


def test_bleu_signature_is_the_default_one():
    bleu = sacrebleu.BLEU()
    bleu.corpus_score(["x"], [["x"]])
    assert scoring.score("bleu", ["x y"], ["x y"]).signature == str(bleu.get_signature())


def test_rouge_is_rouge_scores_with_stemming_and_our_sentences():
    text, reference = "Dr. Who slept. Dogs ran home.", "A dog runs home. Who sleeps? Dr. Who slept well."
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    lines = ["Dr. Who slept.\nDogs ran home.", "A dog runs home.\nWho sleeps?\nDr. Who slept well."]
    expected = {name: 100 * value.fmeasure for name, value in scorer.score(lines[1], lines[0]).items()}
    quality = scoring.score("rouge", [text], [reference])
    assert quality.scores == pytest.approx(expected)
    assert quality.headline == pytest.approx(expected["rougeLsum"])
    assert expected["rougeLsum"] != expected["rougeL"]
    other = scoring.score("rouge2", [text], [reference])
    assert other.scores == quality.scores
    assert other.signature == quality.signature
    assert other.headline == pytest.approx(expected["rouge2"]) != pytest.approx(quality.headline)
    rows = scoring.row_statistics("rouge2", [text], [reference])
    assert 100 * scoring.row_scores("rouge2", rows) == pytest.approx([expected["rouge2"]])


def test_rouge_of_several_texts_is_the_mean():
    quality = scoring.score("rouge", ["a b", "c d"], ["a b", "x y"])
    assert quality.scores["rouge1"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Smith went home. He slept.", ["Mr. Smith went home.", "He slept."]),
        ("It cost 3.5 dollars. Why? No idea!", ["It cost 3.5 dollars.", "Why?", "No idea!"]),
        ("He left the U.S. on Monday.", ["He left the U.S. on Monday."]),
        ("first line\nsecond line", ["first line", "second line"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert scoring.sentences(text) == expected


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="no texts"):
        scoring.score("bleu", [], [])
    with pytest.raises(ValueError, match="1 texts but 2 references"):
        scoring.score("rouge", ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="metric='meteor'"):
        scoring.score("meteor", ["a"], ["a"])


def test_exact_match():
    assert scoring.exact_match([[1, 2], [3], []], [[1, 2], [4], []]) == pytest.approx(2 / 3)


def test_bootstrap_of_a_constant_ratio_has_no_width():
    large = np.arange(1.0, 50.0)
    interval = scoring.paired_bootstrap(large, large / 2, lambda a, b: a.sum() / b.sum(), seed=0)
    assert (interval.value, interval.low, interval.high) == pytest.approx((2, 2, 2))


def test_bootstrap_keeps_pairs_together():
    # Unpaired resampling of these would have an interval about as wide as the values themselves.
    before = np.array([1.0, 1000.0] * 30)
    interval = scoring.paired_bootstrap(before, before + 1, lambda a, b: float((b - a).mean()), seed=0)
    assert interval.high - interval.low < 1e-9


def test_bootstrap_interval_has_the_width_of_theory():
    noise = np.random.default_rng(1).normal(size=400)
    interval = scoring.paired_bootstrap(np.zeros(400), noise, lambda a, b: float((b - a).mean()), seed=0)
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    again = scoring.paired_bootstrap(np.zeros(400), noise, lambda a, b: float((b - a).mean()), seed=0)
    assert again == interval


def test_bootstrap_refuses_what_is_not_paired():
    with pytest.raises(ValueError, match=r"before \(2\) as after \(3\)"):
        scoring.paired_bootstrap(np.zeros(2), np.zeros(3), lambda a, b: 0.0, seed=0)


def test_quality_difference_is_after_minus_before():
    references = ["the cat sat on the mat today", "a dog ran over the green hill"]
    worse = scoring.row_statistics("bleu", ["the cat sat on a mat today", "a dog ran up the green hill"], references)
    best = scoring.row_statistics("bleu", references, references)
    assert scoring.quality_difference("bleu", worse, best, seed=0).value > 0
    assert scoring.quality_difference("bleu", best, worse, seed=0).high < 0


def test_several_texts_a_row_score_the_mean_of_their_scores():
    references = ["the cat sat on the mat today", "a dog ran over the green hill"]
    draws = [["the cat sat on a mat today", "a dog ran up the green hill"], ["the cat sat on the mat", "a dog ran"]]
    for metric in ("bleu", "rouge", "f1"):
        each = [scoring.score(metric, texts, references).scores for texts in draws]
        rows = np.stack([scoring.row_statistics(metric, texts, references) for texts in draws], axis=1)
        found = scoring.quality(metric, rows).scores
        assert found == pytest.approx({name: (each[0][name] + each[1][name]) / 2 for name in each[0]})
        assert each[0] != each[1]


def test_a_difference_holds_the_spread_of_the_draws():
    """Of 400 rows of 5 draws with the standard deviation 1: independent draws, or five times the same."""
    rng = np.random.default_rng(0)
    shape = (400, 5, 1)

    def width(draws: int) -> float:
        made = [np.broadcast_to(rng.standard_normal((400, draws, 1)), shape) for _ in range(2)]
        interval = scoring.quality_difference("number", *made, seed=0)
        assert interval.low < interval.value < interval.high
        return interval.high - interval.low

    assert width(5) == pytest.approx(2 * 1.96 * (2 / (400 * 5)) ** 0.5, rel=0.15)
    assert width(1) == pytest.approx(2 * 1.96 * (2 / 400) ** 0.5, rel=0.15)
