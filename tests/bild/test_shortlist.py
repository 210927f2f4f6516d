"""A small model that may draft listed tokens alone: the same on every engine, and nothing else changes."""

import pytest
import torch
from transformers import LogitsProcessorList, SuppressTokensLogitsProcessor

import bild
from bild.engine import make_runner
from bild.engine.shortlist import ShortlistRunner
from tests.bild.models import EOS, VOCAB, pair, sources

LENGTHS = [6, 1, 4]
LISTED = [3, 4, 5, 8, 9, 11, 14, 17, 20, 21]


def write(policy, *, seed=3, **keywords):
    large, small = pair(seed)
    ids, mask = sources(seed, LENGTHS)
    return bild.generate(large, small, ids, attention_mask=mask, policy=policy, max_new_tokens=12, **keywords)


@torch.no_grad()
@pytest.mark.parametrize("engine", ["static", "static+int8"])
def test_the_shorter_head_gives_the_columns_of_the_whole_one(engine):
    ids, mask = sources(3, LENGTHS)
    listed = torch.tensor(LISTED)
    runners = [
        make_runner(pair(3)[1], engine, 9, listed),
        ShortlistRunner(make_runner(pair(3)[1], engine, 9), listed),
    ]
    logits = []
    for runner in runners:
        runner.prefill(input_ids=ids, attention_mask=mask)
        assert runner.vocab_size == VOCAB
        logits.append(runner.extend(torch.tensor([[0, 5], [0, 6], [0, 7]]), [2, 1, 2]))
    assert logits[0].shape == (3, 2, len(LISTED))
    torch.testing.assert_close(logits[0][:, 0], logits[1][:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("engine", ["static", "hf"])
@pytest.mark.parametrize("do_sample", [False, True])
def test_the_small_model_writes_as_if_all_else_were_forbidden(engine, do_sample):
    others = [token for token in range(VOCAB) if token not in {*LISTED, EOS}]
    forbidden = LogitsProcessorList([SuppressTokensLogitsProcessor(others)])
    short, slow = (
        write(
            bild.SmallOnly(), do_sample=do_sample, generator=torch.Generator().manual_seed(0), engine=engine, **keywords
        )
        for keywords in ({"shortlist": LISTED}, {"logits_processor": forbidden})
    )
    assert short.sequences.equal(slow.sequences)
    assert {token for row in short.sequences[:, 1:].tolist() for token in row} <= {*LISTED, EOS, 0}
    confidences = [[t.confidence for trace in out.trace for t in trace] for out in (short, slow)]
    assert confidences[0] == pytest.approx(confidences[1])


@pytest.mark.parametrize("engine", ["static", "hf"])
def test_what_is_drafted_is_listed_and_what_stands_is_the_large_models(engine):
    exact = bild.BigLittle(fallback=0.3, rollback=0, draft_length=4, verify_eos=True)
    out = write(exact, shortlist=LISTED, engine=engine)
    assert out.sequences.equal(write(bild.LargeOnly()).sequences)
    drafted = {t.token_id for trace in out.trace for t in trace if t.model == "small"}
    assert drafted
    assert drafted <= {*LISTED, EOS}


def test_processors_speak_of_ids_not_of_columns():
    forbidden = LogitsProcessorList([SuppressTokensLogitsProcessor([LISTED[0]])])
    out = write(bild.SmallOnly(), shortlist=LISTED, logits_processor=forbidden)
    assert LISTED[0] not in out.sequences.flatten().tolist()
    expected = write(bild.SmallOnly(), shortlist=LISTED[1:])
    assert out.sequences.equal(expected.sequences)


def test_all_ids_listed_is_no_list():
    policy = bild.BigLittle(fallback=0.5, rollback=1.0, draft_length=4)
    assert write(policy, shortlist=range(VOCAB)).sequences.equal(write(policy).sequences)


@pytest.mark.parametrize(
    ("shortlist", "message"),
    [([], "the shortlist is empty"), ([5, VOCAB], f"holds the id {VOCAB}, but those of the"), ([-1, 5], "the id -1")],
)
def test_a_wrong_list_is_refused(shortlist, message):
    with pytest.raises(ValueError, match=message):
        write(bild.SmallOnly(), shortlist=shortlist)
