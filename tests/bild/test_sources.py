"""Draft sources without a model: what they guess, and that the text is the large model's whatever they guess."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bild
from bild.sources.guess import GuessRunner
from tests.bild.families import family_pair, inputs_of
from tests.bild.models import EOS, START, VOCAB, sources, tiny_t5

LENGTHS = [9, 2, 6]
EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, draft_length=4)
BIGRAM = bild.Bigram({token: 2 + (5 * token) % (VOCAB - 2) for token in range(0, VOCAB, 2)})
SOURCES = [bild.PromptLookup(), bild.PromptLookup(max_ngram=2, min_ngram=2), BIGRAM]


# What is guessed


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


@settings(max_examples=120, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(range(len(SOURCES))), st.booleans())
def test_the_guess_is_that_of_a_search_over_the_whole_text(rng: random.Random, which: int, has_encoder: bool):
    """Rows that grow, are taken back and begin anew in any order; few tokens, so that most n-grams come again."""
    source, n_rows = SOURCES[which], rng.randint(1, 3)
    model = tiny_t5(0) if has_encoder else family_pair("gpt2")[0]
    _, runner = source.runners(model, "hf", 64)
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
    rows = [[5, 6, 7, EOS], [5, 6, EOS], torch.tensor([5, 8, 7, EOS]), [9], []]
    assert bild.Bigram.from_outputs(rows, start=START).table == {START: 5, 5: 6, 6: EOS, 7: EOS, 8: 7}
    assert bild.Bigram.from_outputs(rows).table == {5: 6, 6: EOS, 7: EOS, 8: 7}


# What comes of it


def written(out) -> list[list[int]]:
    return [[t.token_id for t in trace if t.reason != "discarded"] for trace in out.trace]


def drafted(out) -> int:
    return sum(row.drafted for row in out.stats)


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("engine", ["hf", "static", "static+int8"])
def test_the_text_is_the_large_models(source, engine):
    for seed in range(3):
        large = tiny_t5(seed)
        ids, mask = sources(seed, LENGTHS)
        call = {"attention_mask": mask, "max_new_tokens": 16, "engine": engine}
        plain = bild.generate(large, None, ids, policy=bild.LargeOnly(), **call)
        out = bild.generate(large, source, ids, policy=EXACT, **call)
        assert out.sequences.tolist() == plain.sequences.tolist()
        assert drafted(out) > 0


@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_prompts_other_families_and_the_other_door(source, name):
    large, _ = family_pair(name)
    inputs = inputs_of(name, 3, [7, 2, 5])
    plain = bild.generate(large, None, **inputs, policy=bild.LargeOnly(), max_new_tokens=14)
    out = bild.generate(large, source, **inputs, policy=EXACT, max_new_tokens=14)
    assert out.sequences.tolist() == plain.sequences.tolist()
    assert drafted(out) > 0
    through = large.generate(
        **inputs, max_new_tokens=14, do_sample=False, custom_generate=bild.custom_generate, small=source, policy=EXACT
    )
    assert through.tolist() == out.sequences.tolist()


def test_an_encoder_that_reads_no_tokens_leaves_the_text_so_far():
    large, _ = family_pair("whisper")
    inputs = inputs_of("whisper", 3, [1, 1])
    plain = bild.generate(large, None, **inputs, policy=bild.LargeOnly(), max_new_tokens=14)
    out = bild.generate(large, bild.PromptLookup(), **inputs, policy=EXACT, max_new_tokens=14)
    assert out.sequences.tolist() == plain.sequences.tolist()


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_rows_do_not_depend_on_their_batch(source):
    large = tiny_t5(1)
    ids, mask = sources(1, [9, 2, 6, 4, 7])
    rows = [one[: int(length)] for one, length in zip(ids, mask.sum(-1), strict=True)]
    policy = bild.BigLittle(rollback=1.0, verify_eos=True, draft_length=3)
    for sampling in ({}, {"do_sample": True, "temperature": 1.3, "top_k": 9}):
        alone = []
        seeds = torch.Generator().manual_seed(4)
        for row in rows:
            seed = int(torch.randint(2**62, (1,), generator=seeds))
            generator = {"generator": [torch.Generator().manual_seed(seed)]} if sampling else {}
            alone.append(bild.generate(
                large, source, row[None], policy=policy, max_new_tokens=12, **sampling, **generator
            ))  # fmt: skip
        stream = {"generator": torch.Generator().manual_seed(4)} if sampling else {}
        batch = bild.generate(
            large, source, ids, attention_mask=mask, policy=policy, max_new_tokens=12, **sampling, **stream
        )
        assert written(batch) == [written(one)[0] for one in alone]
        assert batch.stats == [one.stats[0] for one in alone]
        stream = {"generator": torch.Generator().manual_seed(4)} if sampling else {}
        many = bild.generate_many(
            large, source, rows, batch_size=2, policy=policy, max_new_tokens=12, **sampling, **stream
        )
        assert [(written(one)[0], one.stats) for _, one in many] == [(written(one)[0], one.stats) for one in alone]


def test_silence_is_no_draft():
    """A row in which nothing is found goes on with the large model alone; its neighbours draft."""
    large = tiny_t5(2)
    ids, mask = sources(2, [6, 6])
    silent = bild.generate(
        large, bild.PromptLookup(max_ngram=9, min_ngram=9), ids, attention_mask=mask, policy=EXACT, max_new_tokens=8
    )
    assert drafted(silent) == 0
    assert {t.reason for trace in silent.trace for t in trace} == {"large"}
    assert [row.large_steps for row in silent.stats] == [row.tokens for row in silent.stats]
    assert [row.small_steps for row in silent.stats] == [row.rounds for row in silent.stats]


def test_a_text_that_repeats_itself_takes_few_large_steps():
    """A large model that writes one token for ever: lookup drafts it, four at a time and one behind them."""
    large = tiny_t5(3)
    with torch.no_grad():
        large.lm_head.weight.zero_()
        large.lm_head.weight[5] = 1.0
        large.decoder.final_layer_norm.weight.fill_(1.0)
    ids, mask = sources(3, [5])
    plain = bild.generate(large, None, ids, attention_mask=mask, policy=bild.LargeOnly(), max_new_tokens=30)
    out = bild.generate(large, bild.PromptLookup(), ids, attention_mask=mask, policy=EXACT, max_new_tokens=30)
    assert out.sequences.tolist() == plain.sequences.tolist()
    assert len(set(out.sequences[0, 1:].tolist())) == 1, "make a model that repeats itself"
    assert out.stats[0].tokens / out.stats[0].large_steps > 3


@pytest.mark.parametrize("fields", [
    {"no_repeat_ngram_size": 2}, {"min_length": 9}, {"exponential_decay_length_penalty": (2, 1.8)},
    {"repetition_penalty": 1.7}, {"forced_eos_token_id": EOS}, {"bad_words_ids": [[7], [4, 9]]},
], ids=lambda fields: next(iter(fields)))  # fmt: skip
@pytest.mark.parametrize("source", [bild.PromptLookup(), BIGRAM], ids=str)
def test_a_guess_that_the_processors_forbid_is_no_guess(source, fields):
    large = tiny_t5(0)
    ids, mask = sources(0, LENGTHS)
    config = bild.api.GenerationConfig(**fields, eos_token_id=[EOS, 6])
    call = {"attention_mask": mask, "max_new_tokens": 14, "generation_config": config}
    plain = bild.generate(large, None, ids, policy=bild.LargeOnly(), **call)
    out = bild.generate(large, source, ids, policy=EXACT, **call)
    assert out.sequences.tolist() == plain.sequences.tolist()
    assert drafted(out) > 0


def test_an_id_that_the_large_model_cannot_write_is_never_proposed():
    _, runner = bild.PromptLookup().runners(tiny_t5(0), "hf", 9)
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
    ids, mask = sources(0, LENGTHS)
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
        (lambda: go(BIGRAM, bild.SmallOnly()), "does not write whole texts, but SmallOnly.* has nothing else"),
        (lambda: go(BIGRAM, shortlist=[3]), "a shortlist is for a small model's head"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_policy_that_looks_ahead_is_refused():
    class Looking(bild.BigLittle):
        keeps_scores = looks_ahead = True

    with pytest.raises(ValueError, match="asks for a distribution behind every draft, and PromptLookup"):
        go(bild.PromptLookup(), Looking())
