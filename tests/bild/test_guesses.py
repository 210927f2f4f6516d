"""Draft sources without a model: what they guess, when they say nothing, and what they refuse."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

import bild
from bild.policies.deferral import RULES
from bild.sampling import Sampler
from bild.sources.guess import GuessRunner
from bild.types import Draft, Scores, Steps
from tests.bild.families import family_pair
from tests.bild.models import EOS, START, VOCAB, sources, tiny_t5

EXACT = bild.BigLittle(rollback=0.0, verify_eos=True)
BIGRAM = bild.Bigram({token: 2 + (5 * token) % (VOCAB - 2) for token in range(0, VOCAB, 2)})
JUDGING = {"chow": -0.01, "diff": -1.0, "opt": -1.0, "token_v1": -1.0, "token_v2": 0.0, "token_v3": 0.5, "bild": 0.5}
NEVER = {"bild": math.inf}
VERIFYING = [
    bild.BigLittle(rollback=1.0, verify_eos=True),
    bild.Speculative(),
    bild.Speculative(lenience=0.5),
    bild.OracleMixing(threshold=0.1),
    *(bild.SpeculativeCascade(rule=rule, alpha=alpha, bonus="large") for rule, alpha in JUDGING.items()),
]
SOURCES = [bild.PromptLookup(), bild.PromptLookup(max_ngram=2, min_ngram=2), BIGRAM]


def naive_lookup(source: list[int], text: list[int], max_ngram: int, min_ngram: int) -> int | None:
    """The slow twin: search the text backwards, then the source, for the longest n-gram first."""
    for size in range(max_ngram, min_ngram - 1, -1):
        if size > len(text):
            continue
        ending = text[-size:]
        for place in (text, source):
            for start in range(len(place) - size - 1, -1, -1):
                if place[start : start + size] == ending:
                    return place[start + size]
    return None


def naive_guess(source, has_encoder: bool, read: list[int], text: list[int]) -> int | None:
    if isinstance(source, bild.Bigram):
        return source.table.get(text[-1])
    return naive_lookup(read if has_encoder else [], text, source.max_ngram, source.min_ngram)


def proposals(runner: GuessRunner, logits: torch.Tensor, widths: list[int]) -> list[list[int | None]]:
    """What a call of ``extend`` proposes after each token that counts."""
    ids = runner.listed.tolist()
    assert ids == sorted(set(ids))
    assert logits.shape[-1] == len(ids)
    found = []
    for row, width in zip(logits.tolist(), widths, strict=True):
        assert all(value in (0.0, -torch.inf) for column in row[:width] for value in column)
        chosen = [[id_ for id_, value in zip(ids, column, strict=True) if value == 0.0] for column in row[:width]]
        assert all(len(one) <= 1 for one in chosen)
        found.append([one[0] if one else None for one in chosen])
    return found


@settings(max_examples=80)
@given(st.randoms(use_true_random=False), st.sampled_from(range(len(SOURCES))), st.booleans())
def test_the_guess_is_that_of_a_search_over_the_whole_text(rng: random.Random, which: int, has_encoder: bool):
    """Rows that grow, are taken back and begin anew in any order; few tokens, so that most n-grams come again."""
    source, n_rows = SOURCES[which], rng.randint(1, 3)
    model = tiny_t5(0) if has_encoder else family_pair("gpt2")[0]
    _, runner = source.runners(model, "hf", 64, None)
    read: list[list[int]] = []
    texts: list[list[int]] = []

    def new_rows(count: int):
        """Sources or left-padded prompts of 1 to 8 tokens, and what they are as inputs."""
        rows = [[rng.randint(2, 5) for _ in range(rng.randint(1, 8))] for _ in range(count)]
        width = max(map(len, rows))
        padding = [[0] * (width - len(row)) for row in rows]
        pairs = list(zip(rows, padding, strict=True))
        ids = [row + pad if has_encoder else pad + row for row, pad in pairs]
        mask = [[1] * len(row) + pad if has_encoder else pad + [1] * len(row) for row, pad in pairs]
        return rows, width, {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def begin(row: int, tokens: list[int], width: int):
        read[row], texts[row] = tokens, [] if has_encoder else tokens[:-1]
        base[row] = 0 if has_encoder else width - 1 - len(texts[row])

    read, texts, base = ([None] * n_rows for _ in range(3))
    rows, width, inputs = new_rows(n_rows)
    runner.prefill(**inputs)
    for row in range(n_rows):
        begin(row, rows[row], width)
    floors = [len(text) for text in texts]
    for _ in range(rng.randint(1, 14)):
        action = rng.choice(["extend", "extend", "extend", "rollback", "restart"])
        if action == "extend":
            widths = [rng.randint(0, 4) for _ in range(n_rows)]
            columns = max(1, *widths)
            tokens = torch.tensor([[rng.randint(2, 5) for _ in range(columns)] for _ in range(n_rows)])
            found = proposals(runner, runner.extend(tokens, widths), widths)
            for row, count in enumerate(widths):
                for column in range(count):
                    texts[row].append(int(tokens[row, column]))
                    assert found[row][column] == naive_guess(source, has_encoder, read[row], texts[row])
        elif action == "rollback":
            kept = [rng.randint(floor, len(text)) for floor, text in zip(floors, texts, strict=True)]
            runner.rollback([count + offset for count, offset in zip(kept, base, strict=True)])
            for text, count in zip(texts, kept, strict=True):
                del text[count:]
        else:
            chosen = rng.sample(range(n_rows), rng.randint(1, n_rows))
            rows, width, inputs = new_rows(len(chosen))
            runner.restart(chosen, **inputs)
            for row, tokens in zip(chosen, rows, strict=True):
                begin(row, tokens, width)
                floors[row] = len(texts[row])
        assert runner.lengths == [len(text) + offset for text, offset in zip(texts, base, strict=True)]


@pytest.mark.parametrize(("text", "guess"), [
    ([7, 8], 9),          # the longest n-gram decides: 7 8 -> 9, not 8 -> 4
    ([3, 8], 4),          # 3 8 has not been seen: 8 was last followed by 4
    ([8, 5, 8], 5),       # the text so far comes after the source
    ([3], None),          # the source's last token: nothing follows it, and the text is another text
    ([6, 6], 6),          # a token that repeats itself
    ([2, 9, 9, 2], 9),
])  # fmt: skip
def test_lookup(text, guess):
    row = bild.PromptLookup().begin([7, 8, 9, 8, 4, 3])
    for token in text:
        row.add(token)
    assert row.guess() == guess


def test_tokens_that_are_taken_back_leave_no_trace():
    row = bild.PromptLookup().begin([7, 8, 9])
    for token in (8, 5, 8):
        row.add(token)
    assert row.guess() == 5
    row.drop(2)
    assert row.guess() == 9


def test_bigram_counts():
    rows = [[5, 8, 7, EOS], [5, 8, EOS], torch.tensor([5, 6, 7, EOS]), [9], []]
    # 8 follows 5 more often than 6 does; EOS and 7 follow 8 as often as each other.
    assert bild.Bigram.from_outputs(rows, start=START).table == {START: 5, 5: 8, 8: EOS, 7: EOS, 6: 7}
    assert bild.Bigram.from_outputs(rows).table == {5: 8, 8: EOS, 7: EOS, 6: 7}


def test_an_id_that_the_large_model_cannot_write_is_never_proposed():
    _, runner = bild.PromptLookup().runners(tiny_t5(0), "hf", 9, None)
    runner.prefill(input_ids=torch.tensor([[7, VOCAB, 7, 8]]))
    logits = runner.extend(torch.tensor([[7, VOCAB]]), [2])
    assert proposals(runner, logits, [2]) == [[8, 7]]
    runner.prefill(input_ids=torch.tensor([[7, VOCAB]]))
    assert proposals(runner, runner.extend(torch.tensor([[7]]), [1]), [1]) == [[None]]


# Files and mistakes


def test_a_table_outlives_its_process(tmp_path):
    path = tmp_path / "bigram.json"
    BIGRAM.save(path)
    assert bild.Bigram.load(path) == BIGRAM
    assert [file.name for file in tmp_path.iterdir()] == ["bigram.json"]


@pytest.mark.parametrize("content", [
    "no json", "[]", '{"format": "other", "tokens": [1], "next": [2]}', '{"format": "bild.Bigram 1", "tokens": [1]}',
    '{"format": "bild.Bigram 1", "tokens": [1], "next": []}', '{"format": "bild.Bigram 1", "tokens": [], "next": []}',
    '{"format": "bild.Bigram 1", "tokens": ["a"], "next": [2]}',
])  # fmt: skip
def test_a_file_that_is_no_table_is_refused(content, tmp_path):
    path = tmp_path / "bigram.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"bigram\.json is no bigram table \(.+\); write one with Bigram\.save"):
        bild.Bigram.load(path)


def go(source, policy=EXACT, **keywords):
    ids, mask = sources(0, [9, 2, 6])
    return bild.generate(tiny_t5(0), source, ids, attention_mask=mask, policy=policy, max_new_tokens=4, **keywords)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bild.PromptLookup(max_ngram=0), "max_ngram=0 must be a whole number >= 1"),
        (lambda: bild.PromptLookup(min_ngram=1.0), "min_ngram=1.0 must be a whole number"),
        (lambda: bild.PromptLookup(min_ngram=4), "min_ngram=4 is more than max_ngram=3; lower it"),
        (lambda: bild.Bigram({}), "the bigram table is empty; build it from outputs"),
        (lambda: bild.Bigram({3: -1}), "holds 3: -1; give token ids"),
        (lambda: bild.Bigram({"3": 1}), "holds '3': 1; give token ids"),
        (lambda: bild.Bigram.from_outputs([[4], []]), "the bigram table is empty"),
        (lambda: bild.Bigram.from_outputs([[4, 5], 6]), "output 1 is no sequence of token ids"),
        (lambda: bild.Bigram.from_outputs([torch.ones(2, 3)]), "output 0 is no sequence of token ids"),
        (lambda: go(bild.Bigram({3: VOCAB})), f"holds the id {VOCAB}, but those of the large model are 0 to 23"),
        (lambda: go(BIGRAM, bild.SmallOnly()), "does not write whole texts, but SmallOnly.* asks for them"),
        (lambda: go(BIGRAM, bild.SequenceCascade(threshold=-1.0)), "whole texts, but SequenceCascade.* asks for them"),
        (lambda: go(BIGRAM, shortlist=[3]), "a shortlist is for a small model's head"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_policy_that_looks_ahead_is_refused():
    with pytest.raises(ValueError, match="asks for a distribution behind every draft, and PromptLookup"):
        go(bild.PromptLookup(), bild.SpeculativeCascade(rule="token_v3", alpha=0.1))


@pytest.mark.parametrize("source", [bild.PromptLookup(), BIGRAM, bild.EarlyExit(1)], ids=str)
@pytest.mark.parametrize("policy", [
    bild.BigLittle(), bild.BigLittle(rule="authors"), bild.BigLittle(rollback=float("inf"), verify_eos=True),
    bild.TokenCascade(alpha=0.5), bild.OracleDiff(alpha=0.3), bild.OracleMixing(threshold=0),
    *(bild.SpeculativeCascade(rule=rule, alpha=NEVER.get(rule, 1.0), bonus="large") for rule in RULES),
], ids=str)  # fmt: skip
def test_guesses_are_refused_where_a_token_may_stand_unverified(source, policy):
    """A guess is sure of itself whatever it is worth; a model that drafts, such as an early exit, is not."""
    if source.writes_alone:
        go(source, policy)
        return
    with pytest.raises(ValueError, match=r"only guesses, and .* lets drafted tokens stand .* verify_eos=True"):
        go(source, policy)


@pytest.mark.parametrize("wrong", [5, EOS])
@pytest.mark.parametrize("policy", VERIFYING, ids=str)
def test_no_guess_stands_that_the_large_model_finds_impossible(policy, wrong):
    assert policy.verifies_all
    table = bild.Bigram(dict.fromkeys(range(VOCAB), wrong))
    out = go(table, policy, generation_config=GenerationConfig(sequence_bias={(wrong,): -50.0}))
    assert all(row.drafted > 0 and row.accepted == 0 and row.tokens == 4 for row in out.stats)


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(do_sample=True), Sampler(do_sample=True, top_k=9)], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_a_cascade_verifies_everything_where_no_large_model_lets_the_impossible_stand(rule, sampler):
    """Whether the large model is sure of another token, of none among thousands, or of anything between."""
    large = torch.zeros(6, 2, 4096, dtype=torch.float64)
    large[..., 7] = torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0, 99.0]).unsqueeze(-1)
    large[..., 5] = -math.inf
    small = torch.full_like(large, -math.inf)
    small[..., 5] = 0.0
    nowhere = torch.zeros(6, dtype=torch.bool)
    draft = Draft(
        tokens=torch.full((6, 1), 5), n_drafted=torch.ones(6, dtype=torch.long), stopped=nowhere, looked_ahead=nowhere,
        token_probs=torch.ones(6, 1), small=Steps([Scores(small, small, sampler)], 2, 4096),
    )  # fmt: skip
    uniforms = None if sampler.greedy else torch.full((6, 2), 1e-6)
    for alpha in (-math.inf, -2.0, -1.0, -0.99, -0.5, -0.01, 0.0, 0.01, 0.5, 0.99, 1.0, 1.5, math.inf):
        policy = bild.SpeculativeCascade(rule=rule, alpha=alpha, bonus="large")
        verdict = policy.verify(draft, Scores(large, large, sampler), uniforms)
        assert policy.verifies_all == (verdict.n_accepted == 0).all().item(), alpha
