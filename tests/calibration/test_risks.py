"""What a loss is, by hand."""

import numpy as np
import pytest

from pipelines.calibration.risks import CorpusDrop, Disagreement, MethodTexts, ScoreLoss
from pipelines.decoding.scoring import row_scores, row_statistics, score


def written(tokens: list[list[int]], texts: list[str], references: list[str], metric: str = "bleu") -> MethodTexts:
    return MethodTexts(tokens, metric, row_statistics(metric, texts, references))


def by_tokens(*tokens: list[int]) -> MethodTexts:
    return written(list(tokens), ["a"] * len(tokens), ["a"] * len(tokens))


@pytest.mark.parametrize(
    ("large", "policy", "share"),
    [
        ([5, 6, 1], [5, 6, 1], 0),
        ([5, 6, 7, 1], [5, 9, 7, 1], 1 / 4),
        ([5, 6, 7, 1], [5, 6, 1], 2 / 4),  # the end moves, and what the longer has beyond counts
        ([5, 1], [5, 6, 7, 1], 3 / 4),
        ([5, 6, 7], [8, 5, 6], 1),  # positions are compared, not pieces
        ([], [], 0),
        ([], [1], 1),
    ],
)
def test_disagreement(large: list[int], policy: list[int], share: float) -> None:
    assert Disagreement().losses(by_tokens(large), by_tokens(policy)) == pytest.approx([share])


REFERENCES = ["the old dog sleeps in the warm sun", "two cats sit on the high wall"]
WORSE = ["the old cat sleeps in the sun", "two cats sit on a wall"]


@pytest.mark.parametrize("metric", ["bleu", "rouge"])
def test_score_loss_is_one_sided_and_bounded(metric: str) -> None:
    same, worse = (written([[1], [1]], texts, REFERENCES, metric) for texts in (REFERENCES, WORSE))
    losses = ScoreLoss().losses(same, worse)
    assert losses == pytest.approx(1 - row_scores(metric, worse.statistics))
    assert (losses > 0.1).all()
    assert ScoreLoss().losses(worse, same) == pytest.approx([0, 0])
    empty = written([[1], [1]], ["", ""], REFERENCES, metric)
    assert ScoreLoss().losses(same, empty) == pytest.approx([1, 1])


def test_the_score_of_a_sentence_is_sacrebleu_s() -> None:
    from sacrebleu import sentence_bleu

    expected = [sentence_bleu(text, [reference]).score for text, reference in zip(WORSE, REFERENCES, strict=True)]
    assert row_scores("bleu", row_statistics("bleu", WORSE, REFERENCES)) * 100 == pytest.approx(expected)
    rouge = [score("rouge", [text], [reference]).headline for text, reference in zip(WORSE, REFERENCES, strict=True)]
    assert row_scores("rouge", row_statistics("rouge", WORSE, REFERENCES)) * 100 == pytest.approx(rouge)


def test_the_corpus_drop_is_that_of_the_corpus_score() -> None:
    large, policy = (written([[1]] * 20, texts * 10, REFERENCES * 10) for texts in (REFERENCES, WORSE))
    risk = CorpusDrop(metric="bleu", seed=0)
    losses = risk.losses(large, policy)
    drop = score("bleu", REFERENCES, REFERENCES).headline - score("bleu", WORSE, REFERENCES).headline
    assert risk.estimate(losses) == pytest.approx(drop)
    assert risk.estimate(risk.losses(policy, large)) == pytest.approx(-drop)
    assert not risk.guaranteed


def test_the_corpus_bound_is_one_sided() -> None:
    """Of resampled drops, delta are above it; a two-sided interval of that level would leave half of them."""
    generator = np.random.default_rng(0)
    large = np.repeat(generator.normal(50, 10, size=(400, 1)), 4, axis=1)
    policy = large - generator.normal(1, 4, size=(400, 1))
    risk = CorpusDrop(metric="rouge", seed=0)
    losses = np.concatenate([large, policy], axis=1)
    spread = (large - policy)[:, 0].std() / 20
    assert risk.bound(losses, 0.1) == pytest.approx(risk.estimate(losses) + 1.2816 * spread, abs=0.15 * spread)
    assert risk.bound(losses, 0.1) != CorpusDrop(metric="rouge", seed=1).bound(losses, 0.1)
