"""Prompts as tokens: short enough by whole examples, the question kept, and where the answer's line ends."""

from __future__ import annotations

import pytest

from pipelines.cli import UserError
from pipelines.data.prompt import FewShot
from pipelines.data.task import Task
from pipelines.data.vocabulary import train_tokenizer
from pipelines.decoding import prompts
from pipelines.decoding.decode import count_cut, source_ids
from tests.prompts.conftest import ROWS, TEXTS

QUESTIONS = [row["question"] for row in ROWS]
SHOTS = FewShot(shots=3, seed=0, template="Question: {source}\nAnswer: {target}\n\n")


class Made(Task):
    """A task whose examples are given."""

    examples = tuple(TEXTS[:3])


def made(length: int, prompt: FewShot | None = SHOTS, prefix: str = "Where?\n") -> Task:
    return Made(
        name="x", version=1, metric="exact_match", origin=None, source_length=length, target_length=8,
        prompt=prompt, prefix=prefix,
    )  # fmt: skip


def text(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_whole_examples_are_left_out_from_the_front(tokenizers, family):
    tokenizer = tokenizers[family]
    start = "<s>" if family == "llama" else ""
    question = f"Question: {QUESTIONS[7]}\nAnswer:"
    whole = [start + "Where?\n" + "".join(TEXTS[kept:3]) + question for kept in range(4)]
    lengths = [len(tokenizer(one.removeprefix(start))["input_ids"]) for one in whole]
    assert lengths == sorted(lengths, reverse=True)
    for length in (lengths[0] + 9, *lengths):
        for limit in (length, length - 1):
            task = made(limit)
            [ids] = source_ids([QUESTIONS[7]], tokenizer, task)
            left_out = next((place for place, needed in enumerate(lengths) if needed <= limit), None)
            # The task's prefix goes last of all.
            assert text(tokenizer, ids) == (start + question if left_out is None else whole[left_out])
            assert count_cut([QUESTIONS[7]], [ids], tokenizer, task) == (lengths[0] > limit)


def test_a_question_that_is_too_long_keeps_its_end(tokenizers):
    for family, start in (("gpt2", []), ("llama", ["<s>"])):
        tokenizer = tokenizers[family]
        side = tokenizer.truncation_side
        whole = tokenizer(f"Question: {QUESTIONS[0]}\nAnswer:", add_special_tokens=False)["input_ids"]
        short, long = source_ids(["Hm?", QUESTIONS[0]], tokenizer, made(9, prefix=""))
        assert long == tokenizer.convert_tokens_to_ids(start) + whole[-9 + len(start) :]
        assert len(short) <= 9
        assert tokenizer.truncation_side == side


def test_rows_keep_their_places(tokenizers):
    tokenizer = tokenizers["gpt2"]
    sources = [" ".join(QUESTIONS[:count]) for count in (9, 1, 4, 2, 7)]
    together = source_ids(sources, tokenizer, made(70))
    assert together == [source_ids([one], tokenizer, made(70))[0] for one in sources]
    assert len({text(tokenizer, ids).count("Answer:") for ids in together}) > 2
    assert source_ids([], tokenizer, made(70)) == []
    assert count_cut([], [], tokenizer, made(70)) == 0


def test_line_ends(tokenizers):
    tokenizer = tokenizers["gpt2"]
    ends = prompts.line_ends(tokenizer)
    assert ends == [index for index in range(len(tokenizer)) if "\n" in tokenizer.decode([index])]
    assert len(ends) > 1, "also merged ones, such as two line breaks"
    assert prompts.line_ends(train_tokenizer(["Ċ is a letter\nof Malta"], 300)) == [3 + 10], "its byte alone"


def test_first_line():
    assert prompts.first_line(" Rome.\n\nQuestion") == "Rome."
    assert prompts.first_line("Rome") == "Rome"
    assert prompts.first_line("\nRome") == ""


def test_room(tokenizers):
    from tests.prompts.conftest import causal

    models = {"large": causal("gpt2", tokenizers["gpt2"], 0, 1), "small": None}
    prompts.check_room(models, [[1] * 300, [1] * 3], 20)
    with pytest.raises(
        UserError, match=r"large: has 320 positions, too few for a prompt of 301 tokens and 20 more; set"
    ):
        prompts.check_room(models, [[1] * 3, [1] * 301], 20)
    prompts.check_room({"large": causal("llama", tokenizers["llama"], 0, 1), "small": None}, [[1] * 9999], 20)
    prompts.check_room(models, [], 20)


def test_unlike_things_do_not_fit(tokenizers):
    from tests.prompts.conftest import causal
    from tests.training.tiny import new_model

    causal_model, seq2seq = causal("gpt2", tokenizers["gpt2"], 0, 1), new_model()
    asked, plain = made(99), made(99, prompt=None)
    prompts.check_fit({"large": causal_model}, asked)
    prompts.check_fit({"large": seq2seq, "small": seq2seq}, asked)
    prompts.check_fit({"large": seq2seq}, plain)
    with pytest.raises(
        UserError, match="task=x: has no prompt, and decoder-only models write on from one; choose a few"
    ):
        prompts.check_fit({"large": causal_model, "small": causal_model}, plain)
    with pytest.raises(UserError, match="small: is decoder-only and the other model is not; choose two of one"):
        prompts.check_fit({"large": seq2seq, "small": causal_model}, asked)
