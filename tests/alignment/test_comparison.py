import json
import math
from dataclasses import replace

import numpy as np
import pytest

import bild
from pipelines.alignment import overlap, report
from pipelines.alignment.comparison import Comparison, Examples, Figure, RowStatistics, as_json, figures
from pipelines.data.vocabulary import train_tokenizer
from pipelines.decoding.decode import BatchDecoder, Decoding
from pipelines.decoding.pair import Pair, describe
from pipelines.decoding.scoring import Interval
from tests.bild.models import tiny_t5

SOURCES = ["ein roter Hund", "zwei Katzen im Haus", "der Mann", "sie singt ein Lied", "das alte Auto fährt"]


def measured(accepted, drafted=10, tokens=12, large_steps=4, common=0.5, same=6.0, positions=12.0, score=20.0):
    """Four equal rows."""
    return RowStatistics(
        counts=np.array([[accepted, drafted, tokens, large_steps]] * 4, dtype=float),
        lossless=np.array([[tokens, large_steps + 2]] * 4, dtype=float),
        likeness=np.array([[common * positions, same, positions]] * 4),
        quality=np.full((4, 4), score),  # ROUGE: a mean of rows
        policy_quality=np.full((4, 4), score + 1),
    )


def test_figures_follow_their_definitions():
    after = measured(8, tokens=16, common=0.75, same=6.0, score=30.0)
    found = figures(measured(5, same=3.0), after, "rouge", seed=0)
    values = {name: (figure.before, figure.after) for name, figure in found.items()}
    assert values == {
        "acceptance": (0.5, 0.8),
        "mean_accepted_length": (3.0, 4.0),
        "block_efficiency": (2.0, 16 / 6),
        "overlap": (0.5, 0.75),
        "agreement": (0.25, 0.5),
        "quality": (20.0, 30.0),
        "policy_quality": (21.0, 31.0),
    }
    # Equal rows leave nothing to resample: the interval is the difference.
    assert found["acceptance"].difference == Interval(*[pytest.approx(0.3)] * 3)
    assert found["quality"].label == "small alone, rougeLsum"


def test_rows_are_weighted_by_their_counts():
    before = measured(0)
    counts = np.array([[1, 1, 2, 1], [0, 9, 9, 9]], dtype=float)
    after, both = (replace(before, counts=rows) for rows in (counts, counts * 0 + 1))
    assert figures(both, after, "rouge", seed=0)["acceptance"].after == pytest.approx(1 / 10)


def test_nothing_drafted_is_null_not_zero():
    found = figures(measured(0, drafted=0), measured(5), "rouge", seed=0)["acceptance"]
    assert math.isnan(found.before)
    content = as_json(found)
    assert content["before"] is None
    assert content["after"] == 0.5
    assert content["difference"]["value"] is None
    assert json.dumps(content, allow_nan=False)
    assert "unknown" in report.verdict(found, "acceptance")


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.01, 0.2, "rose"), (-0.2, -0.01, "fell"), (-0.1, 0.1, "did not change clearly")]
)
def test_the_verdict_follows_the_interval(low, high, words):
    figure = Figure("", 0.5, 0.6, Interval((low + high) / 2, low, high))
    assert report.verdict(figure, "alpha").startswith(f"alpha {words}")


TOKENIZER = train_tokenizer(SOURCES, 300)
DECODING = Decoding(max_new_tokens=12)
POLICY = bild.BigLittle(fallback=0.0, rollback=1.0)


def paired(large, small):
    return Pair(large, small, TOKENIZER, {"large": describe(large, "large", ""), "small": describe(small, "small", "")})


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The large model, and a new comparison, which has measured nothing yet."""
    large = tiny_t5(0, vocab=len(TOKENIZER))
    encoded = TOKENIZER(SOURCES)["input_ids"]
    written = BatchDecoder(large, None, TOKENIZER, DECODING).decode(bild.LargeOnly(), encoded, range(len(SOURCES)))
    texts, tokens = [row.text for row in written], [row.tokens for row in written]
    examples = Examples(encoded, ["ein Hund"] * len(SOURCES), texts, tokens, "bleu")
    return large, lambda: Comparison(DECODING, POLICY, examples, 3, tmp_path_factory.mktemp("cache"))


def test_what_is_scored_as_the_small_models_own_is_its_own(comparison, monkeypatch):
    large, new = comparison
    small = tiny_t5(5, vocab=large.config.vocab_size)
    decoder = BatchDecoder(large, small, TOKENIZER, DECODING)
    alone, with_policy = (
        [row.text for row in decoder.decode(one, TOKENIZER(SOURCES)["input_ids"], range(len(SOURCES)))]
        for one in (bild.SmallOnly(), POLICY)
    )
    monkeypatch.setattr(Comparison, "_statistics", lambda self, texts: texts)
    found = new().measure(paired(large, small), "small")
    assert (found.quality, found.policy_quality) == (alone, with_policy)
    assert alone != with_policy


def test_a_copy_of_the_large_model_is_the_perfect_draft(comparison):
    large, new = comparison
    compare = new()
    before = compare.measure(paired(large, tiny_t5(5, vocab=large.config.vocab_size)), "before")
    after = compare.measure(paired(large, large), "after")
    found = figures(before, after, "bleu", seed=0)
    assert found["acceptance"].after == 1
    assert found["overlap"].after == pytest.approx(1, abs=1e-5)
    assert found["agreement"].after == 1
    assert found["quality"].after == pytest.approx(compare.large_quality)
    # Five drafted tokens and one more a large step, less where an output ends.
    assert found["block_efficiency"].before < 2 < found["block_efficiency"].after <= 6
    for name in ("acceptance", "overlap", "agreement"):
        assert found[name].before < 1
        assert found[name].difference.low > 0


def test_measuring_twice_gives_the_same_figures(comparison):
    large, new = comparison
    pair = paired(large, tiny_t5(1, vocab=large.config.vocab_size, like=large))
    one, other = new().measure(pair, "one"), new().measure(pair, "other")
    np.testing.assert_array_equal(one.counts, other.counts)
    found = figures(one, other, "bleu", seed=0)
    assert all(figure.difference.value == 0 for figure in found.values())


def test_what_was_written_and_scored_is_kept(comparison, monkeypatch):
    large, new = comparison
    compare = new()
    pair, other = (paired(large, tiny_t5(seed, vocab=large.config.vocab_size, like=large)) for seed in (1, 5))
    first = compare.measure(pair, "first")
    assert not np.array_equal(compare.measure(other, "other").likeness, first.likeness)
    monkeypatch.setattr(BatchDecoder, "decode", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(overlap, "score", lambda *_: pytest.fail("scored again"))
    again = compare.measure(pair, "again")
    for name in ("counts", "lossless", "likeness", "quality", "policy_quality"):
        np.testing.assert_allclose(getattr(again, name), getattr(first, name), rtol=1e-6)


def test_what_to_do_about_unclear_answers_is_said_once_and_only_then(capsys):
    hint = "compare more rows (align.report_limit) or train longer"
    report.show(figures(measured(5), measured(5), "rouge", seed=0), "title")
    shown = capsys.readouterr().out
    assert shown.count("did not change clearly") == len(report.VERDICTS)
    assert shown.count(hint) == 1
    report.show(figures(measured(5), measured(8, tokens=16, common=0.75), "rouge", seed=0), "title")
    shown = capsys.readouterr().out
    assert shown.count(" rose") == len(report.VERDICTS)
    assert hint not in shown


def test_points_have_two_digits_and_ratios_three(capsys):
    report.show(figures(measured(5, score=9.5), measured(8, score=30.0), "rouge", seed=0), "title")
    lines = capsys.readouterr().out.splitlines()
    score, acceptance = (next(line for line in lines if name in line) for name in ("small alone", "accepted / drafted"))
    assert "9.50" in score
    assert "+20.50 to +20.50" in score
    assert "+0.300 to +0.300" in acceptance


def test_outputs_are_described_in_one_line():
    summary = {"outputs": 2000, "tokens": 30_000, "empty": 0, "cut": 0}
    assert report.described(summary, 8) == "2,000 outputs of 15.0 tokens on average"
    one = report.described({"outputs": 1, "tokens": 8, "empty": 1, "cut": 1}, 8)
    assert one.startswith("1 output of 8.0 tokens on average; empty: 1, kept")
    assert one.endswith("cut at 8 tokens (align.generation_max_length): 1")


def test_the_table_shows_every_figure_and_a_dash_for_nothing(capsys):
    report.show(figures(measured(0, drafted=0), measured(5), "rouge", seed=0), "title")
    shown = capsys.readouterr().out
    for words in ("acceptance", "mean accepted length", "alpha", "greedy choice", "small alone, rougeLsum"):
        assert words in shown
    line = next(line for line in shown.splitlines() if "accepted / drafted" in line)
    assert " - " in line
    assert "0.500" in line
