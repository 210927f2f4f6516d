"""Each method's numbers are its own, and beside the large model's on the same rows."""

from __future__ import annotations

import numpy as np
import pytest

import bild
from pipelines.decoding.decode import Decoding
from pipelines.decoding.rows import DecodedRow
from pipelines.decoding.scoring import row_statistics, score
from pipelines.evaluation import run
from pipelines.evaluation.bench import Settings
from pipelines.evaluation.timings import Timing
from tests.evaluation.conftest import stats

REFERENCES = ["the old dog sleeps in the warm sun", "two cats sit on the high wall", "a man sings an old song"]
WORSE = ["the old cat sleeps in the sun", "two cats sit on a wall", "a man sings a song"]
TEXTS = {"large": REFERENCES, "small": WORSE, "policy": [REFERENCES[0], *WORSE[1:]]}
STEPS = {"large": [(0, 4), (0, 6), (0, 5)], "small": [(7, 0), (8, 0), (9, 0)], "policy": [(3, 2), (5, 2), (2, 1)]}
TIMES = {"large": [(42.0, 2.0), (53.0, 3.0)], "small": [(9.0, 1.0), (10.0, 2.0)], "policy": [(20.0, 3.0), (30.0, 5.0)]}
TIMED = (0, 2)
POLICIES = {"large": bild.LargeOnly(), "small": bild.SmallOnly(), "policy": bild.BigLittle()}


@pytest.fixture(scope="module")
def numbers() -> dict:
    """Three rows, of which the first and the last are timed; a text's tokens are its own."""
    decoded, timings = {}, {}
    for name, texts in TEXTS.items():
        tokens = [[*map(ord, text), 1] for text in texts]
        counted = [stats(small_steps=small, large_steps=large, tokens=5) for small, large in STEPS[name]]
        decoded[name] = [DecodedRow(*row, []) for row in zip(texts, tokens, counted, strict=True)]
        timings[name] = [Timing(row, name, *times, tokens[row]) for row, times in zip(TIMED, TIMES[name], strict=True)]
    statistics = {name: row_statistics("bleu", texts, REFERENCES) for name, texts in TEXTS.items()}
    return run._numbers(POLICIES, decoded, statistics, timings, "bleu", [1], 0, others=())


def test_quality_is_that_of_the_methods_own_texts(numbers):
    scores = {name: score("bleu", texts, REFERENCES).headline for name, texts in TEXTS.items()}
    for entry in numbers["methods"]:
        assert entry["quality"]["score"] == pytest.approx(scores[entry["method"]])
        lost = scores[entry["method"]] - scores["large"]
        assert entry["quality"]["difference_to_large"]["value"] == pytest.approx(lost)
    assert scores["small"] < scores["policy"] < scores["large"]


def test_texts_and_times_are_compared_with_the_large_models(numbers):
    same = [entry["rates"]["exact_match_with_large"] for entry in numbers["methods"]]
    assert same == pytest.approx([1, 0, 1 / 3])
    speedups = [entry["latency"]["speedup"]["value"] for entry in numbers["methods"]]
    assert speedups == pytest.approx([1, 95 / 19, 95 / 50])


def test_c_is_made_of_the_timed_rows_alone(numbers):
    """16 ms of decoding for 7 + 9 small steps, 90 ms for 4 + 5 large ones."""
    assert numbers["cost_ratio"] == pytest.approx((16 / 16) / (90 / 9))
    assert numbers["methods"][2]["predicted_speedup"] == pytest.approx(15 / (10 * 0.1 + 5))


def test_every_seed_draws_texts_of_its_own(pair, task, dataset, tmp_path):
    def statistics(seed: int, seeds: int, **sampling) -> np.ndarray:
        decoding = Decoding(max_new_tokens=8, seed=seed, do_sample=True, **sampling)
        settings = Settings(batch_size=4, latency_limit=1, cache=tmp_path, seeds=seeds)
        done = run.measure(pair, task, dataset, {"large": bild.LargeOnly()}, decoding, settings, others={})
        assert done.content["run"]["seeds"] == list(range(seed, seed + done.statistics["large"].shape[1]))
        return done.statistics["large"]

    first, second = statistics(3, 1), statistics(4, 1)
    assert not np.array_equal(first, second)
    assert np.array_equal(statistics(3, 2), np.concatenate([first, second], axis=1))
    assert statistics(3, 2, temperature=0.0).shape == first.shape, "nothing is drawn"
