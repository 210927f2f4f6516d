"""Continuous batches: every text is the one that it would be alone, whatever stands beside it and whenever it came."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import logits_process as lp

import bild
from bild.decode import Decoder
from bild.many import RestartError, _ids
from tests.bild.models import pair, sources, tiny_t5

POLICIES = [
    bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4),
    bild.BigLittle(rule="authors", fallback=0.5, rollback=1.0, draft_length=4),
    bild.LargeOnly(),
    bild.SmallOnly(),
]
LENGTHS = [4, 9, 1, 6, 6, 2, 12, 3, 5, 8, 1]


def rows(seed: int, lengths=LENGTHS) -> list[list[int]]:
    ids, mask = sources(seed, lengths)
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def alone(row, policy, **keywords):
    large, small = pair(3)
    return bild.generate(large, small, torch.tensor([row]), policy=policy, max_new_tokens=12, **keywords)


@pytest.mark.parametrize("engine", ["static", "hf"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_every_text_is_the_one_that_it_is_alone(policy, engine):
    inputs = rows(3)
    together = list(bild.generate_many(*pair(3), inputs, policy=policy, batch_size=3, max_new_tokens=12, engine=engine))
    assert [index for index, _ in together] == list(range(len(inputs)))
    for (_, out), row in zip(together, inputs, strict=True):
        expected = alone(row, policy, engine=engine)
        assert out.sequences.equal(expected.sequences)
        assert out.stats == expected.stats
        assert [[t.reason for t in trace] for trace in out.trace] == [
            [t.reason for t in trace] for trace in expected.trace
        ]


@settings(max_examples=15, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_sampled_texts_do_not_depend_on_the_batch(lengths, batch_size, seed, ordered):
    inputs = rows(seed, lengths)
    keywords = {"policy": POLICIES[0], "max_new_tokens": 8, "do_sample": True, "ordered": ordered}
    outs = [
        dict(
            bild.generate_many(
                *pair(3), inputs, batch_size=size, generator=torch.Generator().manual_seed(seed), **keywords
            )
        )
        for size in (batch_size, len(inputs))
    ]
    assert outs[0].keys() == outs[1].keys() == set(range(len(inputs)))
    assert all(outs[0][index].sequences.equal(outs[1][index].sequences) for index in outs[0])


def test_sampling_is_that_of_one_batch():
    ids, mask = sources(3, LENGTHS)
    keywords = {"policy": POLICIES[0], "max_new_tokens": 8, "do_sample": True}
    batch = bild.generate(*pair(3), ids, attention_mask=mask, generator=torch.Generator().manual_seed(1), **keywords)
    many = bild.generate_many(*pair(3), rows(3), batch_size=2, generator=torch.Generator().manual_seed(1), **keywords)
    for row, (index, out) in zip(range(len(LENGTHS)), many, strict=True):
        assert index == row
        tokens = out.stats[0].tokens
        assert batch.stats[index].tokens == tokens
        assert out.sequences[0].equal(batch.sequences[index, : 1 + tokens])


@pytest.mark.parametrize("batch_size", [1, 3, len(LENGTHS)])
def test_every_input_may_have_a_generator_of_its_own_made_when_its_turn_comes(batch_size):
    made = []

    def own(index):
        made.append(index)
        return torch.Generator().manual_seed(100 + index)

    inputs = rows(3)
    many = bild.generate_many(
        *pair(3), inputs, policy=POLICIES[0], batch_size=batch_size, max_new_tokens=12, do_sample=True, generator=own
    )
    outs = [next(many)]
    assert len(made) < len(inputs) or batch_size == len(inputs)
    outs += many
    assert made == list(range(len(inputs)))
    for (index, out), row in zip(outs, inputs, strict=True):
        generators = [torch.Generator().manual_seed(100 + index)]
        assert out.sequences.equal(alone(row, POLICIES[0], do_sample=True, generator=generators).sequences)


@pytest.mark.parametrize(
    ("engine", "policy", "parts"),
    [("hf", POLICIES[0], True), ("hf", POLICIES[2], False), ("static", POLICIES[0], False)],
)
def test_rows_that_part_are_told_where_one_cache_cannot_hold_them(engine, policy, parts):
    many = bild.generate_many(*pair(3), rows(3), policy=policy, batch_size=2, max_new_tokens=12, engine=engine)
    assert any(one for _, out in many for one in out.parted) == parts


@pytest.mark.parametrize("error", [KeyError("no seed"), None], ids=["raises", "no generator"])
def test_an_input_whose_generator_fails_is_named_and_takes_nobody_with_it(error):
    """Inputs 2 and 3 come together into rows that have ended together; so would 4 have come."""
    asked = []

    def own(index):
        asked.append(index)
        if index == 3:
            if error is not None:
                raise error
            return index
        return torch.Generator().manual_seed(index)

    many = closing_together(rows(3), generator=own, do_sample=True)
    for (index, out), row in zip(itertools.islice(many, 3), rows(3), strict=False):
        generators = [torch.Generator().manual_seed(index)]
        alone = bild.generate(
            pair(3)[0], None, torch.tensor([row]), policy=bild.LargeOnly(), max_new_tokens=1, do_sample=True,
            generator=generators,
        )  # fmt: skip
        assert out.sequences.equal(alone.sequences)
    with pytest.raises(ValueError, match=r"input 3: .*(no seed|must be a torch.Generator)") as caught:
        next(many)
    assert caught.value.__cause__ is error or error is None
    assert asked == [0, 1, 2, 3]


def test_greedy_texts_ask_for_no_generator():
    def own(index):
        raise AssertionError

    list(bild.generate_many(*pair(3), rows(3), policy=POLICIES[0], batch_size=2, max_new_tokens=4, generator=own))


def test_what_needs_whole_batches_says_so_by_its_kind():
    config = GenerationConfig(encoder_no_repeat_ngram_size=2)
    with pytest.raises(RestartError):
        next(bild.generate_many(*pair(3), rows(3), policy=POLICIES[0], generation_config=config))


def test_places_are_filled_as_they_fall_free_and_nothing_is_read_ahead():
    read = []

    def inputs():
        for index, row in enumerate(rows(3)):
            read.append(index)
            yield row

    many = bild.generate_many(*pair(3), inputs(), policy=POLICIES[0], batch_size=3, ordered=False, max_new_tokens=12)
    assert read == []
    finished = 0
    for _ in many:
        finished += 1
        assert len(read) <= 3 + finished + 2  # rows that end in one round are refilled together
    assert finished == len(LENGTHS)


def test_what_tokenizers_give_is_an_input_too():
    large, small = pair(3)
    ids, mask = sources(3, [5, 2])
    given_as_mappings = [{"input_ids": ids[row : row + 1], "attention_mask": mask[row : row + 1]} for row in (0, 1)]
    outs = [
        [out.sequences.tolist() for _, out in bild.generate_many(large, small, inputs, policy=POLICIES[0])]
        for inputs in (given_as_mappings, rows(3, [5, 2]), map(torch.tensor, rows(3, [5, 2])))
    ]
    assert outs[0] == outs[1] == outs[2]


def test_no_input_gives_nothing():
    assert list(bild.generate_many(*pair(3), [], policy=POLICIES[0])) == []


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a whole number >= 1"),
        ({"generator": [torch.Generator()]}, "generator must be one generator, .*or a function .*: got a list"),
        ({"generator": lambda index: index, "do_sample": True}, r"generator\(0\) must be a torch.Generator: got a int"),
        (
            {"generation_config": GenerationConfig(encoder_no_repeat_ngram_size=2)},
            "EncoderNoRepeatNGramLogitsProcessor looks at a batch's first sources only",
        ),
    ],
)
def test_bad_arguments(keywords, message):
    with pytest.raises(ValueError, match=message):
        next(bild.generate_many(*pair(3), rows(3), policy=POLICIES[0], **keywords))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "input 4 must be the token ids of one source, at least one"),
        ([[1, 2]], "input 4 must be the token ids"),
        ([5.5, 6.0], "input 4 must be the token ids of one source.*float32"),
        ({"input_ids": torch.ones(2, 3, dtype=torch.long)}, r"input 4 must hold input_ids \(1, S\)"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "mask": torch.ones(1, 3)}, "nothing else: got .*'mask'"),
        ([5, 99], "input 4: input_ids hold the id 99"),
    ],
)
def test_a_bad_input_is_named_and_what_came_before_it_is_finished(wrong, message):
    many = bild.generate_many(*pair(3), [*rows(3)[:4], wrong], policy=POLICIES[0], batch_size=2, max_new_tokens=4)
    assert [index for index, _ in itertools.islice(many, 4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=message):
        next(many)


def closing_together(inputs, **keywords):
    """Two rows at a time, that begin and end in the same rounds."""
    return bild.generate_many(*pair(3), inputs, policy=bild.LargeOnly(), batch_size=2, max_new_tokens=1, **keywords)


def test_places_that_fall_free_together_are_filled_together(monkeypatch):
    rounds, real = [], Decoder.round
    monkeypatch.setattr(Decoder, "round", lambda self: rounds.append(self) or real(self))
    assert len(list(closing_together(rows(3)[:6]))) == 6
    assert len(rounds) == 3


@pytest.mark.parametrize("wrong", [[], [5, 99], OSError("the disk is gone")], ids=["empty", "unknown id", "iterator"])
def test_those_who_come_with_a_bad_input_and_before_it_are_decoded(wrong):
    good = rows(3)[:5]

    def inputs():
        yield from good
        if isinstance(wrong, Exception):
            raise wrong
        yield wrong
        raise AssertionError("an input was read behind one that is bad")

    many = closing_together(inputs())
    for (index, out), row in zip(itertools.islice(many, 5), good, strict=True):
        assert out.sequences.equal(
            bild.generate(pair(3)[0], None, torch.tensor([row]), policy=bild.LargeOnly(), max_new_tokens=1).sequences
        ), index
    with pytest.raises((ValueError, OSError), match=r"input 5|the disk is gone"):
        next(many)


def test_features_that_do_not_fit_those_before_them_leave_these_alone():
    features = [torch.randn(1, width, 16, dtype=torch.float64) for width in (4, 4, 4, 5)]
    many = closing_together([{"inputs_embeds": one} for one in features])
    assert [index for index, _ in itertools.islice(many, 3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"input 3: inputs_embeds has the shape \(1, 5, 16\)"):
        next(many)


@pytest.mark.parametrize(
    "processor",
    [
        lp.EncoderNoRepeatNGramLogitsProcessor(2, torch.tensor([[3, 4, 5]])),
        lp.EncoderRepetitionPenaltyLogitsProcessor(2.0, torch.tensor([[3, 4, 5]])),
        lp.PrefixConstrainedLogitsProcessor(lambda row, tokens: [row + 2], 1),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_a_processor_that_knows_rows_by_their_place_is_refused(processor):
    processors = LogitsProcessorList([processor])
    with pytest.raises(ValueError, match=f"{type(processor).__name__} looks at a batch's first sources only"):
        next(bild.generate_many(*pair(3), rows(3), policy=POLICIES[0], logits_processor=processors))


def test_an_iterator_that_fails_loses_nothing():
    def failing():
        yield from rows(3)[:4]
        raise OSError("the disk is gone")

    many = bild.generate_many(*pair(3), failing(), policy=POLICIES[0], batch_size=3, max_new_tokens=4)
    assert [index for index, _ in itertools.islice(many, 4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(many)


def test_greedy_decoding_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(bild.generate_many(*pair(3), rows(3), policy=POLICIES[0], batch_size=2, max_new_tokens=4))
    assert torch.rand(1) == expected


@pytest.mark.parametrize("engine", ["static", "hf"])
@pytest.mark.parametrize(("begins", "goes_on"), list(itertools.permutations(["inference", "no_grad", "grad"], 2)))
def test_an_iterator_goes_on_in_another_mode_than_it_began_in(begins, goes_on, engine):
    modes = {"inference": torch.inference_mode, "no_grad": torch.no_grad, "grad": torch.enable_grad}
    inputs = rows(3, [4, 2, 5, 3])
    many = bild.generate_many(*pair(3), inputs, policy=POLICIES[0], batch_size=2, max_new_tokens=12, engine=engine)
    with modes[begins]():
        outs = [next(many)]
    with modes[goes_on]():
        outs += many
        assert torch.is_grad_enabled() == (goes_on == "grad")
    for (_, out), row in zip(outs, inputs, strict=True):
        assert out.sequences.equal(alone(row, POLICIES[0], engine=engine).sequences)
        out.sequences.zero_()  # an ordinary tensor, whatever mode it was made in


def test_an_abandoned_iterator_closes_and_asks_for_no_more_inputs():
    asked = []
    given = (asked.append(place) or row for place, row in enumerate(rows(3)))
    many = bild.generate_many(*pair(3), given, policy=POLICIES[0], batch_size=2, max_new_tokens=12)
    next(many)
    before = len(asked)
    many.close()
    assert list(many) == []
    assert len(asked) == before < len(LENGTHS)


@pytest.mark.parametrize("small", [None, bild.PromptLookup()], ids=str)
def test_without_a_model_it_says_which_one_is_missing(small):
    with pytest.raises(ValueError, match=r"pass large=\.\.\."):
        next(bild.generate_many(None, small, rows(3), policy=bild.Speculative()))


def test_looking_at_newcomers_takes_time_in_proportion_to_them(monkeypatch):
    looked = []
    monkeypatch.setattr("bild.many._ids", lambda source, index: looked.append(index) or _ids(source, index))
    inputs = rows(3, [3] * 40)
    list(bild.generate_many(*pair(3), inputs, policy=bild.LargeOnly(), batch_size=20, max_new_tokens=1))
    assert len(looked) <= 4 * len(inputs)


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("of", [lambda ids: ids, lambda ids: ids.tolist(), lambda ids: {"input_ids": ids[None]}])
def test_padding_without_a_mask_is_refused_as_generate_does(place, of):
    padded = torch.tensor([5, 9, 0, 0])
    inputs = [*rows(3)[:place], of(padded)]
    outs = bild.generate_many(*pair(3), inputs, policy=POLICIES[0], batch_size=2, max_new_tokens=4)
    with pytest.raises(ValueError, match=rf"input {place} holds the pad id 0; give its token ids without padding"):
        list(outs)
    masked = {"input_ids": padded[None], "attention_mask": torch.tensor([[1, 1, 0, 0]])}
    ((_, out),) = bild.generate_many(*pair(3), [masked], policy=POLICIES[0], max_new_tokens=12)
    assert out.sequences.equal(alone([5, 9], POLICIES[0]).sequences)


def test_where_rows_cannot_run_together_batches_follow_one_another():
    """Six texts of eight tokens, three at a time: sixteen passes of three rows, none of fewer."""
    large = tiny_t5(3, eos=[])
    shown = []
    large.register_forward_pre_hook(lambda _, arguments, given: shown.append(given), with_kwargs=True)
    outs = bild.generate_many(
        large, None, rows(3, [4, 9, 1, 6, 6, 2]), policy=bild.LargeOnly(), batch_size=3, max_new_tokens=8, engine="hf"
    )
    assert [index for index, _ in outs] == list(range(6))
    assert [len(one["decoder_input_ids"]) for one in shown] == [3] * 16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input_ids": [[2, 3]], "attention_mask": [[1, 1]]}, "input_ids is a list; pass tensors: tokenizer"),
        ({"input_ids": torch.tensor([[2, 3]]), "attention_mask": torch.tensor([[1]])}, "must hold input_ids"),
        ({"input_ids": torch.tensor([[2, 3, 4]]), "attention_mask": torch.tensor([[1, 0, 1]])}, "leaves out more than"),
        (
            {"input_ids": torch.tensor([[2, 3]]), "attention_mask": torch.tensor([[0, 1]])},
            "leaves out more than the end",
        ),
        ([True, True], "must be the token ids of one source"),
        (torch.tensor([2 + 1j, 3]), "must be the token ids of one source"),
        (None, "got a NoneType"),
        ([[2], [3, 4]], "got a list"),
        ([2**70], "got a list"),
    ],
    ids=str,
)
@pytest.mark.parametrize("place", [0, 3])
def test_what_is_no_source_is_named_with_its_number(wrong, message, place):
    outs = bild.generate_many(*pair(3), [*rows(3)[:place], wrong], policy=POLICIES[0], batch_size=2, max_new_tokens=4)
    with pytest.raises(ValueError, match=rf"input {place}.*{message}"):
        list(outs)


def test_what_is_of_one_call_is_not_for_many():
    for name in ("input_ids", "attention_mask", "streamer"):
        with pytest.raises(ValueError, match=f"{name} is not for generate_many"):
            next(bild.generate_many(*pair(3), rows(3), policy=POLICIES[0], **{name: torch.ones(1, 2)}))
    with pytest.raises(ValueError, match="inputs is a int; pass one source after the other"):
        next(bild.generate_many(*pair(3), 5, policy=POLICIES[0]))


@pytest.mark.parametrize("batch_size", [1, 2, 9])
def test_one_prompt_is_for_all(batch_size):
    prompt = torch.tensor([[0, 5]])
    outs = bild.generate_many(
        *pair(3), rows(3), policy=POLICIES[0], batch_size=batch_size, max_new_tokens=8, decoder_input_ids=prompt
    )
    for (_, out), row in zip(outs, rows(3), strict=True):
        expected = bild.generate(
            *pair(3), torch.tensor([row]), policy=POLICIES[0], max_new_tokens=8, decoder_input_ids=prompt
        )
        assert out.sequences.equal(expected.sequences)


def test_a_model_that_takes_no_part_may_be_elsewhere():
    large, small = pair(3)
    elsewhere = copy.deepcopy(large).to("meta")
    (one,) = bild.generate_many(elsewhere, small, rows(3)[:1], policy=bild.SmallOnly(), max_new_tokens=12)
    assert one[1].sequences.equal(alone(rows(3)[0], bild.SmallOnly()).sequences)
