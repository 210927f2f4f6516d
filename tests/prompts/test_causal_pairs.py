"""Decoder-only pairs on a few-shot task, from files and through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

import bild
from pipelines import align, evaluate, finetune, generate
from pipelines.cli import CONF, UserError
from pipelines.decoding.decode import BatchDecoder, Decoding, decode_rows, source_ids
from pipelines.decoding.prompts import line_ends
from pipelines.models import loading
from pipelines.models.sources import Bigram
from tests.conf import ROOT, composed
from tests.prompts.conftest import ROWS, TEXTS

FAMILIES = ("gpt2", "llama", "gemma2")
EXACT = bild.BigLittle(rollback=0.0, verify_eos=True, fallback=0.3)
MIXED = bild.BigLittle(fallback=0.3, rollback=1.0)
AUTHORS = bild.BigLittle(fallback=0.3, rollback=1.0, rule="authors")


def run(entry: object, root: str, *overrides: str) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(root, list(overrides))
    entry.main(config)


def loaded(folder: Path, role: str) -> loading.LoadedModel:
    return loading.load(loading.Model(name=role, path=str(folder / role)), "nowhere", role)


def prepared(folder: Path, overrides, **decoding) -> tuple[BatchDecoder, list[list[int]]]:
    task = instantiate(composed("evaluate", *overrides(folder)).task)
    large, small = (loaded(folder, role) for role in ("large", "small"))
    options = Decoding(max_new_tokens=12, one_line=True, **decoding)
    decoder = BatchDecoder(large.model, small.model, large.tokenizer, options)
    return decoder, source_ids(task.load("test")["source"], large.tokenizer, task)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_class_is_that_of_the_config(folders, family):
    one = loaded(folders[family], "large")
    assert not one.model.config.is_encoder_decoder
    assert one.tokenizer.pad_token_id is not None
    assert one.note.startswith("large: not fine-tuned on nowhere yet, so pre-trained weights from ")
    expected = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "gemma2": "Gemma2ForCausalLM"}
    assert type(one.model).__name__ == expected[family]


@pytest.mark.parametrize(
    ("family", "do_sample", "policies"),
    [
        ("gpt2", False, [EXACT, MIXED, AUTHORS, bild.LargeOnly(), bild.SmallOnly()]),
        ("gpt2", True, [MIXED]),
        ("llama", False, [MIXED]),
        ("gemma2", False, [MIXED]),
    ],
)
def test_batches_padded_on_the_left_are_their_rows(folders, overrides, family, do_sample, policies):
    decoder, inputs = prepared(folders[family], overrides, do_sample=do_sample)
    inputs = [ids[-length:] for ids, length in zip(inputs, (200, 40, 31, 80, 9, 1), strict=False)]
    ids, mask = decoder.pad(inputs)
    assert mask[:, -1].all()
    assert [ids[row][mask[row].bool()].tolist() for row in range(len(inputs))] == inputs
    for policy in policies:
        together, alone = (decode_rows(decoder, policy, inputs, size, None, None) for size in (4, 1))
        assert [row.tokens for row in together] == [row.tokens for row in alone]
        assert [row.stats for row in together] == [row.stats for row in alone]
        assert len({tuple(row.tokens) for row in together}) > 2


@pytest.mark.parametrize("family", FAMILIES)
def test_lossless_settings_write_what_transformers_writes(folders, overrides, family):
    decoder, inputs = prepared(folders[family], overrides)
    models = {role: loaded(folders[family], role) for role in ("large", "small")}
    tokenizer = models["large"].tokenizer
    ends = [0, *line_ends(tokenizer)]
    assert decoder.eos == ends
    for policy, role in ((EXACT, "large"), (bild.LargeOnly(), "large"), (bild.SmallOnly(), "small")):
        rows = decode_rows(decoder, policy, inputs[:4], 4, None, None)
        for ids, row in zip(inputs[:4], rows, strict=True):
            config = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=ends, pad_token_id=0)
            out = models[role].model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long(), generation_config=config
            )
            written = out[0, len(ids) :].tolist()
            assert row.tokens == written, "the prompt is no part of it"
            assert row.text == tokenizer.decode(written, skip_special_tokens=True).partition("\n")[0].strip()


def test_a_line_break_ends_an_answer(folders, overrides):
    decoder, inputs = prepared(folders["gpt2"], overrides)
    prompts = [ids[:length] for ids in inputs for length in range(5, 60, 5)]
    rows = decode_rows(decoder, bild.LargeOnly(), prompts, 16, None, None)
    ended = [row for row in rows if row.tokens[-1] in decoder.eos[1:]]
    assert ended, "the random model writes some"
    assert all(set(row.tokens[:-1]).isdisjoint(decoder.eos) for row in rows)
    assert all("\n" not in row.text for row in rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bigram_table_writes_answers_to_their_end(folders, overrides, family, tmp_path, monkeypatch):
    """As they stand behind a prompt: with the blank before, without a token that begins a text, one line, ended."""
    monkeypatch.chdir(tmp_path)
    large = loaded(folders[family], "large")
    task = instantiate(composed("evaluate", *overrides(folders[family])).task)
    table = Bigram(name="bigram", texts="auto", outputs="none", limit=None).load(large, task).source.table
    ends = {*line_ends(large.tokenizer), large.tokenizer.eos_token_id}
    answers = [f" {row['answer'][0]}" for row in ROWS[:9]]
    rows = large.tokenizer(answers, add_special_tokens=False)["input_ids"]
    assert {row[0] for row in rows} <= table.keys()
    last = {row[-1] for row in rows}
    assert {table[token] for token in last} <= ends
    assert large.tokenizer.bos_token_id not in table
    task = replace(task, prompt=replace(task.prompt, template=task.prompt.template.rstrip()))
    table = Bigram(name="bigram", texts="auto", outputs="none", limit=None).load(large, task).source.table
    assert {table[token] for token in last} == {large.tokenizer.eos_token_id}


def test_evaluate(folders, overrides, tmp_path, capsys):
    given = [*overrides(folders["gemma2"]), f"out={tmp_path / 'results'}", "bild.fallback=0.1", "latency_limit=2"]
    run(evaluate, "evaluate", *given, "task.target_length=6")
    out = capsys.readouterr().out
    assert "exact match" in out
    [path] = (tmp_path / "results" / "nq_open").glob("*.json")
    result = json.loads(path.read_text())
    assert result["task"]["metric"] == "exact_match"
    assert result["task"]["prompt"]["shots"] == 2
    assert len(result["task"]["prompt"]["examples"]) == 2
    assert set(result["task"]["prompt"]["examples"]) <= {text.replace(": in ", ": ") for text in TEXTS}
    assert result["run"]["shortened"] == 0
    assert result["decoding"]["one_line"] is True
    for entry in result["methods"]:
        assert entry["quality"]["scores"].keys() == {"exact_match", "f1"}
        assert entry["latency"]["unlike_batched"] == 0
    page = path.with_suffix(".html").read_text()
    assert "exact match" in page
    assert "Where does" in page


def test_what_a_right_answer_scores(folders, overrides, tmp_path, monkeypatch):
    """A model that knows the answers, as far as the text goes."""
    monkeypatch.setattr("pipelines.decoding.decode.first_line", lambda text: "In Rome.")
    run(evaluate, "evaluate", *overrides(folders["gpt2"]), f"out={tmp_path}", "latency_limit=1", "task.target_length=3")
    [path] = (tmp_path / "nq_open").glob("*.json")
    [score] = {entry["quality"]["score"] for entry in json.loads(path.read_text())["methods"]}
    right = sum(row["answer"][1] == "in Rome" for row in ROWS[9:])
    assert 0 < right < 7
    assert score == pytest.approx(100 * right / 7)


def test_left_out_examples_are_told(folders, overrides, tmp_path, capsys):
    short = [*overrides(folders["llama"]), "task.source_length=35", "task.target_length=4"]
    run(evaluate, "evaluate", *short, f"out={tmp_path / 'results'}", "latency_limit=1")
    [path] = (tmp_path / "results" / "nq_open").glob("*.json")
    assert json.loads(path.read_text())["run"]["shortened"] == 7
    told = "7 sources had examples left out of their prompts, to keep within 35 tokens."
    assert told in path.with_suffix(".html").read_text()
    rows = pq.read_table(path.with_suffix(".parquet")).to_pylist()
    (tmp_path / "in.txt").write_text("".join(f"{row['question']}\n\n" for row in ROWS[9:]))
    capsys.readouterr()
    run(generate, "generate", *short, f"input={tmp_path / 'in.txt'}", f"output={tmp_path / 'out.txt'}")
    told = "7 lines longer than 35 tokens, examples left out of their prompts (task.source_length)"
    assert told in capsys.readouterr().err
    lines = (tmp_path / "out.txt").read_text().split("\n")
    assert lines[:-1:2] == [" ".join(row["text"].splitlines()) for row in rows if row["method"] == "policy"]
    assert set(lines[1::2]) == {""}


def test_evaluate_as_typed(folders, overrides, tmp_path):
    command = [sys.executable, "-m", "pipelines.evaluate", *overrides(folders["gpt2"]), "task.target_length=3"]
    done = subprocess.run(
        [*command, f"out={tmp_path}", "latency_limit=1"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).suffix == ".html"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["task=toy_de_en"], "task=toy_de_en: has no prompt, and decoder-only models write on from one; choose"),
        (["task.target_length=300"], "large: has 320 positions, too few for a prompt of"),
        (["task.prompt.shots=10"], "task.prompt.shots=10: the train split has only 9 rows; lower it, or give more"),
        (["task.target_column='{answers}'"], "row 1 has no column 'answers' (it has question, answer)"),
        (["task.prompt.template=x"], "task.prompt.template='x': must hold {source} once"),
    ],
)
def test_mistakes_are_one_line(change, told, folders, overrides, tmp_path):
    given = overrides(folders["gpt2"])
    if change == ["task=toy_de_en"]:
        given = [word for word in given if not word.startswith("task")]
    with pytest.raises(UserError) as error:
        run(evaluate, "evaluate", *given, *change, f"out={tmp_path}", "limit=2")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mixed_pair_is_one_line_and_an_encoder_decoder_may_be_asked(folders, overrides, tmp_path):
    tokenizer = loaded(folders["gpt2"], "large").tokenizer
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    given = [*overrides(folders["gpt2"]), f"large.path={tmp_path / 't5'}", f"out={tmp_path}", "limit=2"]
    with pytest.raises(UserError, match="small: is decoder-only and the other model is not; choose two of one kind"):
        run(evaluate, "evaluate", *given)
    run(evaluate, "evaluate", *given, f"small.path={tmp_path / 't5'}", "task.target_length=3", "latency_limit=1")
    [path] = (tmp_path / "nq_open").glob("*.json")
    assert json.loads(path.read_text())["models"]["small"]["name"] == "t5"


def test_nothing_trains_a_decoder_only_model(folders, overrides, tmp_path):
    path = folders["gpt2"] / "large"
    given = ["model=path", f"model.path={path}", f"out={tmp_path}", f"results={tmp_path}"]
    with pytest.raises(UserError, match=r"large: is decoder-only; pipelines\.finetune and pipelines\.align train"):
        run(finetune, "finetune", *given, "limit=16")
    pair = [f"{role}{value}" for role in ("large", "small") for value in ("=path", f".path={folders['gpt2'] / role}")]
    with pytest.raises(UserError, match="large: is decoder-only; "):
        run(align, "align", *pair, f"out={tmp_path}", "limit=16")
    with pytest.raises(UserError, match="task=nq_open: is asked with a few-shot prompt"):
        run(align, "align", *overrides(folders["gpt2"]), f"out={tmp_path}")
    with pytest.raises(UserError, match="task=gsm8k: is asked with a few-shot prompt"):
        run(finetune, "finetune", "task=gsm8k", f"out={tmp_path}")
