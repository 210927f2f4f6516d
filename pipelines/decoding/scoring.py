"""How good texts are, and how sure a difference is: BLEU, ROUGE, answers, exact match, the paired bootstrap.

Knows lists of strings and arrays; knows nothing about models, files or policies. A metric is split in two so that it
can be resampled: one row of statistics per text, and a function from rows of statistics to the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.decoding import answers

BLEU_ORDER = 4
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
ANSWER_SCORES = ("exact_match", "f1")
# Which of a metric's numbers stands for it in tables; the paper's "ROUGE-L" is rougeLsum.
HEADLINE = {
    "bleu": "bleu",
    "rouge": "rougeLsum",
    "rouge2": "rouge2",
    "exact_match": "exact_match",
    "f1": "f1",
    "number": "exact_match",
}
_ROUGE = "mean F-measure of ROUGE over the texts, words cut to stems (Porter), sentences as Punkt splits them"
# What each metric's signature says, for people.
MEANINGS = {
    "bleu": "BLEU of the whole split as sacreBLEU computes it: one reference a text, upper and lower case told apart, "
    "its standard tokenization (13a), exponential smoothing where no n-gram of an order matches",
    "rouge": _ROUGE,
    "rouge2": _ROUGE,
    "exact_match": "share of the texts that are a right answer but for case, punctuation and articles, as SQuAD has it",
    "f1": "mean F1 of a text's words with those of the best right answer, without case, punctuation and articles, as "
    "SQuAD has it",
    "number": "share of the texts with the reference's number, the one after #### or else the last, as GSM8K has it",
}
# Metrics that are the mean of each text's scores, and these scores.
_MEANS = {
    "rouge": ROUGE_TYPES,
    "rouge2": ROUGE_TYPES,
    "exact_match": ANSWER_SCORES,
    "f1": ANSWER_SCORES,
    "number": ("exact_match",),
}

# Abbreviations of English news and dialogue that Punkt must not take for the end of a sentence.
_ABBREVIATIONS = """
    mr mrs ms dr prof st sr jr hon rev gov sen rep gen col lt sgt capt ph.d
    e.g i.e vs etc approx est a.m p.m u.s u.k u.n d.c inc ltd corp co dept
    jan feb mar apr jun jul aug sep sept oct nov dec
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())


@dataclass(frozen=True)
class Quality:
    """What a metric says of a set of texts. All scores on the scale 0 to 100."""

    metric: str  # one of HEADLINE
    scores: dict[str, float]
    signature: str  # how the numbers were made, enough to compare them with others'

    @property
    def headline(self) -> float:
        """The number for tables, such as BLEU or rougeLsum."""
        return self.scores[HEADLINE[self.metric]]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval."""

    value: float
    low: float
    high: float


def score(metric: str, texts: Sequence[str], references: Sequence[str]) -> Quality:
    """Score texts against one reference each; for "exact_match" and "f1" it holds one right answer a line.

    Raises:
        ValueError: unknown metric, no texts, or lists of different lengths.
    """
    return quality(metric, row_statistics(metric, texts, references))


def row_statistics(metric: str, texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """One row of numbers per text from which ``aggregate`` makes the score.

    (N, 10) for "bleu", (N, 4) for "rouge" and "rouge2", (N, 2) for "exact_match" and "f1", (N, 1) for "number".
    """
    if len(texts) != len(references):
        raise ValueError(f"{len(texts)} texts but {len(references)} references")
    if len(texts) == 0:
        raise ValueError("nothing to score: there are no texts")
    rows = {
        "bleu": _bleu_row,
        "rouge": _rouge_row,
        "rouge2": _rouge_row,
        "exact_match": _answer_row,
        "f1": _answer_row,
        "number": _number_row,
    }
    if metric not in rows:
        raise ValueError(f"metric={metric!r} must be one of {', '.join(HEADLINE)}")
    return np.array([rows[metric](*pair) for pair in zip(texts, references, strict=True)], dtype=np.float64)


def quality(metric: str, statistics: np.ndarray) -> Quality:
    """The quality of the texts behind ``row_statistics``."""
    return Quality(metric, aggregate(metric, statistics), _signature(metric))


def aggregate(metric: str, statistics: np.ndarray) -> dict[str, float]:
    """The scores, 0 to 100, of the texts behind (N, k) rows of statistics; of S texts a row, (N, S, k), the mean of S
    scores.

    BLEU is a function of the summed n-gram counts, so that it equals sacrebleu's corpus score; the others are means.
    """
    if metric in _MEANS:
        means = statistics.reshape(-1, statistics.shape[-1]).mean(0)
        return {name: float(value) for name, value in zip(_MEANS[metric], means, strict=True)}
    corpora = np.atleast_2d(statistics.sum(0))
    return {"bleu": float(np.mean([_compute_bleu(counts, effective_order=False) for counts in corpora]))}


def row_scores(metric: str, statistics: np.ndarray) -> np.ndarray:
    """(N,) the headline score of each text by itself, 0 to 1; for "bleu" sentence BLEU (effective order, smoothed)."""
    if metric in _MEANS:
        return statistics[:, _MEANS[metric].index(HEADLINE[metric])] / 100
    return np.array([_compute_bleu(row, effective_order=True) for row in statistics]) / 100


def sentences(text: str) -> list[str]:
    """Split a text for rougeLsum: nltk's Punkt algorithm with the fixed list ``ABBREVIATIONS``.

    The published numbers come from nltk's *trained* Punkt model, which is a download (nltk is installed with
    rouge-score, its models are not). The difference: the trained model knows more abbreviations; ours breaks a
    sentence after one that is not in the list and is followed by a capital. Only rougeLsum depends on it. Line breaks
    in the text end a sentence in both.
    """
    return [part for sentence in _punkt().tokenize(text) for part in sentence.splitlines() if part.strip()]


def exact_match(rows: Sequence[object], others: Sequence[object]) -> float:
    """Share, 0 to 1, of positions at which two sequences of texts (or of token lists) are equal."""
    if len(rows) == 0:
        raise ValueError("nothing to compare")
    return sum(one == other for one, other in zip(rows, others, strict=True)) / len(rows)


def paired_bootstrap(
    before: np.ndarray,
    after: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray], float],
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic of paired rows (Koehn, EMNLP 2004): rows are redrawn together.

    Args:
        before: (N, ...) one row per example.
        after: (N, ...) the same examples, measured another way.
        statistic: of resampled ``(before, after)``, for example the difference of two scores or a ratio of sums.
        seed: makes the interval repeatable.

    Returns:
        The statistic on all rows with the interval that holds ``level`` of the resampled values.

    Raises:
        ValueError: no rows, or not the same number of them.
    """
    if len(before) != len(after) or len(before) == 0:
        raise ValueError(f"a paired bootstrap needs as many rows before ({len(before)}) as after ({len(after)})")
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        rows = generator.integers(0, len(before), size=len(before))
        values.append(statistic(before[rows], after[rows]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(before, after)), float(low), float(high))


def quality_difference(metric: str, before: np.ndarray, after: np.ndarray, seed: int) -> Interval:
    """How much better ``after`` is than ``before``, in points of the headline score, with its interval.

    Both are ``row_statistics`` of the same examples, (N, k), or (N, S, k) of S texts that were drawn for each. The
    interval then holds the spread of these draws, too: a row is resampled with all of its draws, and what is drawn for
    one row says nothing of the next.
    """

    def difference(old: np.ndarray, new: np.ndarray) -> float:
        return aggregate(metric, new)[HEADLINE[metric]] - aggregate(metric, old)[HEADLINE[metric]]

    return paired_bootstrap(before, after, difference, seed)


@lru_cache(maxsize=1)
def _bleu():
    from sacrebleu.metrics import BLEU

    # effective_order changes a single sentence's score, which is not used, and silences the warning about it.
    return BLEU(effective_order=True)


@lru_cache(maxsize=1)
def _rouge():
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_TYPES), use_stemmer=True)


@lru_cache(maxsize=1)
def _punkt():
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters)


def _compute_bleu(counts: np.ndarray, effective_order: bool) -> float:
    """BLEU, 0 to 100, of (10,) counts as in ``_bleu_row``, or of sums of them."""
    from sacrebleu.metrics import BLEU

    numbers = counts.astype(int).tolist()
    result = BLEU.compute_bleu(
        correct=numbers[:BLEU_ORDER],
        total=numbers[BLEU_ORDER : 2 * BLEU_ORDER],
        sys_len=numbers[-2],
        ref_len=numbers[-1],
        smooth_method="exp",
        effective_order=effective_order,
    )
    return float(result.score)


def _bleu_row(text: str, reference: str) -> list[int]:
    """Matching n-grams of orders 1 to 4, n-grams of orders 1 to 4, length of the text, length of the reference."""
    result = _bleu().sentence_score(text, [reference])
    return [*result.counts, *result.totals, result.sys_len, result.ref_len]


def _rouge_row(text: str, reference: str) -> list[float]:
    """F-measures in the order of ``ROUGE_TYPES``, 0 to 100."""
    scores = _rouge().score(target="\n".join(sentences(reference)), prediction="\n".join(sentences(text)))
    return [100 * scores[name].fmeasure for name in ROUGE_TYPES]


def _answer_row(text: str, reference: str) -> list[float]:
    """``ANSWER_SCORES``, 0 to 100, by the best of the right answers."""
    right = answers.right_answers(reference)
    return [100 * answers.match(text, right), 100 * answers.best_f1(text, right)]


def _number_row(text: str, reference: str) -> list[float]:
    return [100 * answers.same_number(text, reference)]


def _signature(metric: str) -> str:
    if metric in ("exact_match", "f1"):
        return "squad:lower,no-punctuation,no-articles|best-of-answers"
    if metric == "number":
        return "gsm8k:number-after-####-or-last"
    if metric == "bleu":
        from sacrebleu.metrics import BLEU

        bleu = BLEU()
        # The signature names the number of references, which sacrebleu learns from its first call.
        bleu.corpus_score(["a"], [["a"]])
        return str(bleu.get_signature())
    from importlib.metadata import version

    sentence_rule = f"punkt-{len(ABBREVIATIONS)}-abbreviations"
    return f"rouge-score:{version('rouge_score')}|f-measure|stemmer:porter|sentences:{sentence_rule}"
