"""Steps take turns and are taken back; ratios are between steps of one turn."""

from __future__ import annotations

import pytest
import torch

import bild
from bild.engine.t5.state import T5State
from pipelines.analysis import costs
from pipelines.decoding.decode import BatchDecoder, Decoding

PROBES = [("small", 1), ("large", 1), ("large", 2)]


def test_probes_take_turns_and_the_first_round_warms():
    taken = []

    def step(probe):
        taken.append(probe)
        # The first round is slow, as anything is that is done for the first time.
        return (9 if len(taken) <= 3 else 1) * {"small": 1.0, "large": 10.0}[probe[0]] * probe[1]

    times = costs._take_turns(PROBES, step)
    assert taken[:3] == PROBES
    assert taken[3:6] == [*PROBES[1:], PROBES[0]]
    assert all(len(one) == costs.REPEATS for one in times.values())
    assert times["small", 1] == pytest.approx([1.0] * costs.REPEATS)
    assert times["large", 2] == pytest.approx([20.0] * costs.REPEATS)


def test_ratios_are_of_one_turn():
    """A machine that slows down in the middle changes milliseconds, not ratios."""
    slow = [1, 1, 7, 7, 7]
    found = {
        ("small", 1): [[2.0 * factor for factor in slow]],
        ("large", 1): [[10.0 * factor for factor in slow]],
        ("large", 2): [[15.0 * factor for factor in reversed(slow)]],
    }
    figures = costs._figures(found, seed=0)
    assert figures["turns"] == 5
    assert figures["median_over_fastest"] == 7
    assert figures["c"] == pytest.approx({"value": 0.2, "low": 0.2, "high": 0.2})
    assert figures["small_ms"] == 14
    one, two = figures["large"]
    assert (one["width"], one["ms"], one["over_one"]["value"]) == (1, 70, 1)
    assert (two["width"], two["ms"], two["over_one"]["value"]) == (2, 105, 1.5)


def test_a_ratio_is_the_median_of_ratios():
    """Not the ratio of the medians, 3 to 10, where the machine is slow in one turn."""
    found = {("small", 1): [[7.0, 2.0, 3.0]], ("large", 1): [[70.0, 10.0, 10.0]]}
    assert costs._figures(found, seed=0)["c"]["value"] == pytest.approx(0.2)


def test_repeats_of_a_source_are_no_further_sources():
    """Steps behind one source cost the same again and again: more of them make no interval narrower."""
    small = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]

    def c(repeats: int) -> dict:
        found = {("small", 1): [[ms] * repeats for ms in small], ("large", 1): [[10.0] * repeats for _ in small]}
        return costs._figures(found, seed=0)["c"]

    assert c(9) == c(1)
    assert c(9)["high"] - c(9)["low"] > 0.2


@pytest.mark.parametrize("engine", ["static", "hf"])
def test_steps_of_a_pair_are_taken_back(pair, tokenizer, engine, monkeypatch):
    monkeypatch.setattr(costs, "REPEATS", 2)
    decoder = BatchDecoder(pair.large, pair.small, tokenizer, Decoding(max_new_tokens=3, engine=engine))
    figures = costs.step_costs(decoder, [[5, 6, 1], [7, 1]], [[5, 6, 7, 8], [9]], widest=6)
    assert figures["turns"] == 4
    assert [entry["width"] for entry in figures["large"]] == [1, 2, 3, 4, 5, 6]
    assert all(entry["ms"] > 0 for entry in figures["large"])


@pytest.mark.parametrize("source", [bild.EarlyExit(1), bild.PromptLookup()])
def test_a_large_step_follows_a_draft(pair, tokenizer, source, monkeypatch):
    """What the small side has read of it is not read again: of first layers, all but the last token."""
    monkeypatch.setattr(costs, "REPEATS", 1)
    read = []
    monkeypatch.setattr(T5State, "step", spied(T5State.step, read))
    decoder = BatchDecoder(pair.large, source, tokenizer, Decoding(max_new_tokens=3, engine="static"))
    figures = costs.step_costs(decoder, [[5, 6, 1]], [[5, 6, 7, 8]], widest=4)
    assert [entry["width"] for entry in figures["large"]] == [1, 2, 3, 4]
    # The last round ends with the widest step and the small one. First layers: a draft of three, its last token, all
    # four through the layers above; then the small step.
    expected = [3, 1, 4, 1] if isinstance(source, bild.EarlyExit) else [1, 2, 3, 4]
    assert read[-4:] == expected


def spied(real, widths):
    def step(self, tokens, lengths, counted):
        widths.append(max(counted))
        return real(self, tokens, lengths, counted)

    return step


def test_nothing_is_kept_for_gradients(pair, tokenizer):
    """Weights of a loaded model ask for them; a graph of the source would lie in every cache."""
    decoder = BatchDecoder(pair.large, pair.small, tokenizer, Decoding(max_new_tokens=3, engine="hf"))
    kept = []
    hook = pair.large.register_forward_hook(lambda module, inputs, output: kept.append(output.logits.requires_grad))
    with torch.enable_grad():
        costs._stepper(decoder, [5, 6, 1], [7, 8], 2)
    hook.remove()
    assert kept == [False]
