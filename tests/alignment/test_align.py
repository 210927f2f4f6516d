"""The whole pipeline on tiny models and a file of six sentences."""

import json
import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from omegaconf import OmegaConf

import bild
from pipelines import align
from pipelines.alignment import parts
from pipelines.alignment.divergence import Divergence
from pipelines.alignment.outputs import Processes
from pipelines.alignment.run import Teacher, training_rows
from pipelines.alignment.settings import AlignSettings
from pipelines.cli import UserError
from pipelines.data.task import Task
from pipelines.data.vocabulary import train_tokenizer
from pipelines.decoding.config import instantiated
from pipelines.decoding.decode import Decoding, source_ids
from pipelines.decoding.pair import load_pair, pair_key
from pipelines.files import sole_writer
from pipelines.models import manifest
from pipelines.models.loading import LoadedModel
from pipelines.training import run as training
from tests.bild.models import tiny_t5
from tests.commits import LATER, committed_during
from tests.conf import ROOT, composed
from tests.launch import launched

SOURCES = ["ein roter Hund", "zwei Katzen im Haus", "der Mann", "sie singt ein Lied", "das alte Auto fährt", "ja"]
TARGETS = ["a red dog", "two cats in the house", "the man", "she sings a song", "the old car drives", "yes"]
STEPS = 2
RESULT = "results/toy_de_en/align-sequence-tiny-large-tiny-small-tiny-small-aligned.json"
FIGURES = {
    "acceptance",
    "mean_accepted_length",
    "block_efficiency",
    "overlap",
    "agreement",
    "quality",
    "policy_quality",
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*SOURCES, *TARGETS], 300)


def save(folder, seed, tokenizer):
    model = tiny_t5(seed, vocab=len(tokenizer), dtype=torch.float32, tied=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def here(tmp_path, monkeypatch, tokenizer):
    """A folder with a pair and data, which is the current one."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "large", 0, tokenizer)
    save(tmp_path / "small", 1, tokenizer)
    lines = [json.dumps({"source": s, "target": t}) for s, t in zip(SOURCES, TARGETS, strict=True)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


SETTINGS = [
    "task.data_files={train: pairs.jsonl, validation: pairs.jsonl}",
    "task.target_length=8",
    "large.path=large",
    "small.path=small",
    "align.shard_rows=4",
    f"train.max_steps={STEPS}",
    "train.batch_size=4",
    "train.evaluate_every=1",
    "train.save_every=1",
    "batch_size=3",
    "device=cpu",
]


def run(*overrides):
    align.main(composed("align", *SETTINGS, *overrides))


def test_from_a_pair_to_an_aligned_checkpoint_and_its_figures(here, monkeypatch, capsys):
    committed_during(monkeypatch, training, "train")
    run()
    shown = capsys.readouterr().out
    assert "large  tiny-large: not fine-tuned on toy_de_en yet, so pre-trained weights from large" in shown
    assert "small  tiny-small: not fine-tuned on toy_de_en yet, so pre-trained weights from small" in shown
    assert "outputs for train: 2 shards to generate" in shown
    checkpoint = here / "checkpoints/toy_de_en/tiny-small-aligned"
    assert manifest.is_complete(checkpoint)
    result = json.loads((here / RESULT).read_text())
    assert result == json.loads((checkpoint / "alignment.json").read_text())
    assert set(result["figures"]) == FIGURES
    assert result["method"] == {"method": "sequence"}
    assert result["models"]["before"]["path"] == "small"
    assert result["models"]["after"]["weights"] != result["models"]["before"]["weights"]
    assert result["report"]["examples"] == 6
    assert result["provenance"]["config"]["align"]["shard_rows"] == 4
    assert result["provenance"]["git"] != LATER, "it is not the code that ran"
    # The small model has moved towards the large one on the very rows that it was trained on.
    assert result["figures"]["overlap"]["difference"]["value"] > 0

    run()
    again = capsys.readouterr().out
    assert "outputs for train: nothing to generate, 2 shards from before" in again
    assert "nothing to do: this run was finished before" in again


def listed(folder):
    return json.loads((folder / "shortlist.json").read_text())["ids"]


def test_what_the_outputs_use_becomes_the_shortlist_of_the_aligned_model(here, tokenizer, capsys):
    run()
    checkpoint = here / "checkpoints/toy_de_en/tiny-small-aligned"
    shards = sorted((here / "checkpoints/toy_de_en/tiny-large-outputs/train").glob("*.parquet"))
    written = [token for shard in shards for row in pq.read_table(shard)["tokens"].to_pylist() for token in row]
    assert listed(checkpoint) == sorted({*written, *tokenizer.all_special_ids})
    line = f"shortlist.json: {len(listed(checkpoint))} tokens of {len(tokenizer)}, for small.shortlist=true"
    assert line in capsys.readouterr().out
    weights = (checkpoint / "model.safetensors").read_bytes()
    # Another count needs no other weights.
    count = max(Counter(written).values())
    run(f"align.shortlist_min_count={count}")
    assert "nothing to do: this run was finished before" in capsys.readouterr().out
    often = {token for token in written if written.count(token) >= count}
    assert listed(checkpoint) == sorted({*often, *tokenizer.all_special_ids})
    assert (checkpoint / "model.safetensors").read_bytes() == weights
    assert manifest.is_complete(checkpoint)


def test_two_processes_write_what_one_writes(here):
    shared, alone = ("align.shard_rows=2", "out=shared"), ("align.shard_rows=2", "out=alone")
    with launched(here, "pipelines.align", *SETTINGS, *shared, "align.outputs=by-two", "results=by-two") as both:
        assert both.wait(280) == 0, both.printed()
    printed = both.printed()
    assert printed.count("outputs for train: 2 shards to generate (process 1 of 2; the others take about as many)") == 1
    assert "4/4 [" in printed, "the first process writes shards 0 and 2 of 3, two rows each"
    assert "6/6 [" not in printed.partition("training tiny-small")[0]
    assert printed.count("finished: all 2 steps are done") == 1
    run(*alone, "align.outputs=by-one", "results=by-one")
    for split in ("train", "validation"):
        two, one = here / "by-two" / split, here / "by-one" / split
        shards = [sorted(folder.glob("*.parquet")) for folder in (two, one)]
        assert [path.name for path in shards[0]] == [path.name for path in shards[1]]
        assert len(shards[0]) == 3
        assert [pq.read_table(path).to_pylist() for path in shards[0]] == [
            pq.read_table(path).to_pylist() for path in shards[1]
        ]
        assert manifest.read(two)["summary"] == manifest.read(one)["summary"]
    assert manifest.is_complete(here / "shared")
    result = json.loads((here / "by-two/toy_de_en/align-sequence-tiny-large-tiny-small-shared.json").read_text())
    assert set(result["figures"]) == FIGURES


def test_a_pair_drafts_from_the_shortlist_when_asked_to(here, tokenizer):
    run("align.shortlist_min_count=10000")  # the special tokens alone
    given = [one for one in SETTINGS if one.startswith(("task.", "large.", "small.", "device"))]
    task = instantiated(composed("evaluate", *given), "task")
    whole, short = (load_pair(composed("evaluate", *given, f"small.shortlist={on}"), task) for on in ("false", "true"))
    ids = tokenizer.all_special_ids
    assert (whole.shortlist, short.shortlist) == (None, tuple(sorted(ids)))
    note = f"; drafts from {len(ids)} tokens of {len(tokenizer)} (shortlist.json)"
    assert short.described["small"].note == whole.described["small"].note + note
    inputs, greedy = source_ids(SOURCES, tokenizer, task), Decoding(max_new_tokens=8)
    texts = {}
    for policy in (bild.SmallOnly(), bild.BigLittle(), bild.LargeOnly()):
        rows = [pair.decoder(greedy).decode(policy, inputs, range(6)) for pair in (whole, short)]
        texts[policy] = [[row.tokens for row in some] for some in rows]
        assert {token.token_id for row in rows[1] for token in row.trace if token.model == "small"} <= set(ids)
        keys = [pair_key(pair, policy, inputs, greedy, 4) for pair in (whole, short)]
        assert (keys[0] == keys[1]) == (not policy.uses_small)
    assert texts[bild.SmallOnly()][0] != texts[bild.SmallOnly()][1]
    assert texts[bild.LargeOnly()][0] == texts[bild.LargeOnly()][1]


def test_the_fine_tuned_checkpoint_is_the_start_unless_told_otherwise(here, tokenizer, capsys):
    tuned = here / "checkpoints/toy_de_en/tiny-small"
    save(tuned, 2, tokenizer)
    manifest.write(tuned)
    run("out=from-tuned")
    assert "small  tiny-small: fine-tuned checkpoint checkpoints/toy_de_en/tiny-small" in capsys.readouterr().out
    run("align.init=pretrained", "out=from-pretrained")
    assert "small  tiny-small: pre-trained weights from small" in capsys.readouterr().out
    tuned_run, pretrained_run = (json.loads((here / name / "alignment.json").read_text()) for name in RUNS)
    # Before is what a user has without alignment, wherever the training started.
    assert tuned_run["models"]["before"] == pretrained_run["models"]["before"]
    assert tuned_run["models"]["after"]["weights"] != pretrained_run["models"]["after"]["weights"]
    assert tuned_run["figures"]["overlap"]["before"] == pretrained_run["figures"]["overlap"]["before"]


RUNS = ("from-tuned", "from-pretrained")


def test_other_settings_are_refused_before_anything_is_generated(here, capsys):
    run()
    capsys.readouterr()
    with pytest.raises(UserError, match=r"train\.batch_size is 4 there and 5 now"):
        run("train.batch_size=5", "align.outputs=elsewhere")
    with pytest.raises(UserError, match=r"trained for 2 steps already, train\.max_steps=1 is less"):
        run("train.max_steps=1", "align.outputs=elsewhere")
    assert not (here / "elsewhere").exists()
    with pytest.raises(UserError, match=r"align\.temperature is 0\.0 there and 0\.7 now"):
        run("align.temperature=0.7")
    with pytest.raises(UserError, match="engine is auto there and hf now"):
        run("engine=hf")


def test_a_folder_for_results_that_cannot_be_is_known_before_the_work(here):
    (here / "taken").write_text("")
    with pytest.raises(UserError, match=r"^taken/toy_de_en: nothing can be written there"):
        run("results=taken")
    assert not (here / "checkpoints").exists()


def test_a_quick_look_is_not_taken_for_the_whole(here):
    run("limit=5")
    with pytest.raises(UserError, match="aligned holds another run: training rows is 5 there and 6 now"):
        run()
    with pytest.raises(UserError, match="outputs/train holds other outputs: rows is 5 there and 6 now"):
        run("out=elsewhere")


def test_held_out_outputs_are_greedy_also_when_training_samples(here):
    run("align.temperature=0.7", "align.samples=3", "align.report_limit=4")
    outputs = here / "checkpoints/toy_de_en/tiny-large-outputs"
    trained_on, held_out = (manifest.read(outputs / split) for split in ("train", "validation"))
    assert (trained_on["summary"]["outputs"], held_out["summary"]["outputs"]) == (18, 6)
    assert (trained_on["identity"]["align.temperature"], held_out["identity"]["align.temperature"]) == (0.7, 0.0)
    result = json.loads((here / RESULT).read_text())
    assert result["report"]["examples"] == 4


def test_a_longer_report_needs_further_outputs_and_no_other_training(here, capsys):
    run("train.evaluate_rows=3", "align.report_limit=2")
    capsys.readouterr()
    run("train.evaluate_rows=3", "align.report_limit=5")
    shown = capsys.readouterr().out
    assert "outputs for validation: nothing to generate, 1 shard from before" in shown
    assert "outputs for validation-3-5: 1 shard to generate" in shown
    assert "nothing to do: this run was finished before" in shown
    run("train.evaluate_rows=5", "align.report_limit=5", "out=at-once", "align.outputs=others")
    longer, at_once = (
        json.loads((here / folder / "alignment.json").read_text())
        for folder in ("checkpoints/toy_de_en/tiny-small-aligned", "at-once")
    )
    assert longer["report"] == at_once["report"]
    assert longer["report"]["examples"] == 5
    assert [one["before"] for one in longer["figures"].values()] == [
        one["before"] for one in at_once["figures"].values()
    ]


DISTILL = ("align.method=distill", "align.divergence=jsd", "align.student_fraction=0.5")


def test_distillation_is_another_run_and_its_settings_are_in_its_manifest_card_and_result(here, capsys):
    run("align.method=sequence")
    checkpoint = here / "checkpoints/toy_de_en/tiny-small-aligned"
    with pytest.raises(UserError, match=r"align\.method is sequence there and distill now; align\.divergence is \(not"):
        run(*DISTILL)
    run(*DISTILL, "out=distilled")
    distilled = manifest.read(here / "distilled")
    assert (distilled["identity"]["align.method"], distilled["identity"]["align.divergence"]) == ("distill", "jsd")
    assert distilled["identity"]["large"] != manifest.read(checkpoint)["identity"].get("large")
    assert "| align.student_fraction | 0.5 |" in (here / "distilled/README.md").read_text()
    file = here / "results/toy_de_en/align-distill-jsd0.5-student0.5-tiny-large-tiny-small-distilled.json"
    result = json.loads(file.read_text())
    assert result["method"] == {
        "method": "distill",
        "divergence": "jsd",
        "beta": 0.5,
        "distill_temperature": 1.0,
        "top_k": None,
        "student_fraction": 0.5,
    }
    assert (
        result["models"]["after"]["weights"]
        != json.loads((checkpoint / "alignment.json").read_text())["models"]["after"]["weights"]
    )
    with pytest.raises(UserError, match=r"align\.top_k is None there and 5 now"):
        run(*DISTILL, "align.top_k=5", "out=distilled", "align.outputs=elsewhere")
    assert not (here / "elsewhere").exists()
    # What the method does not use is not taken for a part of it.
    with pytest.raises(UserError, match=r"align\.top_k=5 with align\.method=sequence: of no use there; leave it out"):
        run("align.top_k=5")
    capsys.readouterr()
    run()
    assert "nothing to do: this run was finished before" in capsys.readouterr().out


def test_distillation_gets_what_was_asked_for(tmp_path, monkeypatch):
    asked = settings(
        tmp_path,
        method="distill",
        divergence="jsd",
        beta=0.3,
        distill_temperature=2.0,
        top_k=8,
        student_fraction=0.25,
        generation_max_length=9,
    )
    given = SimpleNamespace(
        settings=asked,
        start=SimpleNamespace(model="student", tokenizer="tokenizer"),
        teacher=SimpleNamespace(large=SimpleNamespace(model="teacher")),
        task=SimpleNamespace(target_length=6),
        training=SimpleNamespace(seed=3),
    )
    monkeypatch.setattr(parts, "Distillation", lambda *models, **values: (models, values))
    models, values = parts.objective(OmegaConf.create({"engine": "hf"}), given)
    divergence = Divergence(name="jsd", beta=0.3, temperature=2.0, top_k=8)
    assert models == ("teacher", "student", "tokenizer", divergence)
    assert values == {"student_fraction": 0.25, "max_new_tokens": 9, "engine": "hf", "seed": 3}


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"method": "sequence"}, "sequence"),
        ({"divergence": "reverse_kl", "beta": 0.9}, "distill-reverse_kl"),
        ({"divergence": "jsd", "student_fraction": 0.25}, "distill-jsd0.5-student0.25"),
        ({"top_k": 8, "distill_temperature": 2.0}, "distill-forward_kl-temperature2-top8"),
    ],
)
def test_a_method_s_name_tells_what_is_not_neutral(tmp_path, changes, label):
    assert settings(tmp_path, **{"method": "distill", **changes}).method_label() == label


@pytest.mark.parametrize("own", ["out", "align.outputs"])
def test_a_second_run_at_the_same_time_is_refused(here, own):
    """Nor does it help if one of the two folders is its own."""
    busy = here / ("aligned" if own == "align.outputs" else "written/train")
    command = [sys.executable, "-m", "pipelines.align", *SETTINGS, "out=aligned", "align.outputs=written"]
    with sole_writer(busy):
        second = subprocess.run(
            [*command, f"{own}=elsewhere"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    assert second.returncode == 2
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"error: {busy.relative_to(here)}: another run is writing there now; wait until it ends")
    assert [file.name for file in busy.iterdir()] == [".lock"]


def test_two_tokenizers_are_refused_before_anything_is_generated(here):
    save(here / "small", 1, train_tokenizer(TARGETS, 300))
    with pytest.raises(UserError, match="different tokenizers"):
        run()
    assert not (here / "checkpoints/toy_de_en/tiny-large-outputs").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("align.method=distil", "align.method=distil: choose one of sequence, distill"),
        ("align.divergence=kl", "choose one of forward_kl"),
        ("align.beta=1", "above 0 and below 1"),
        ("align.beta=half", "must be a number"),
        ("align.distill_temperature=0", "align.distill_temperature=0: give a number above 0"),
        ("align.top_k=0", "at least 1, or null for all tokens"),
        ("align.student_fraction=1.5", "give a number from 0 to 1"),
        ("align.student_fraction=nan", "give a number from 0 to 1"),
        ("align.student_fraction=0.5", "^align.student_fraction=0.5 with align.method=sequence: "),
        ("align.divergence=jsd", "^align.divergence=jsd with align.method=sequence: "),
        ("align.beta=0.2", "^align.beta=0.2 with align.method=sequence: "),
        ("align.distill_temperature=2", "^align.distill_temperature=2 with align.method=sequence: "),
        ("large.aligned=true", "^large.aligned=true: is for the small model of a pair"),
        ("large.shortlist=true", "^large.shortlist=true: is for the small model of a pair"),
        ("train.exits={1:1} align.method=distill", "train.exits with align.method=distill"),
        ("train.label_smoothing=0.1 align.method=distill", "label_smoothing=0.1 with align.method=distill"),
        ("align.init=best", "choose one of finetuned, pretrained"),
        ("align.samples=2", "would repeat the greedy output"),
        ("align.temperature=-1", "give a number from 0"),
        ("align.temperature=nan", "give a number from 0"),
        ("align.generation_max_length=0", "at least 1"),
        ("align.shard_rows=0", "at least 1"),
        ("align.report_limit=0", "at least 1"),
        ("align.shortlist_min_count=0", "align.shortlist_min_count=0: .*at least 1"),
        ("small.shortlist=true", "alignment makes the list"),
        ("small.shortlist=maybe", "small.shortlist=maybe: must be true or false"),
        ("align.temperature=warm", "must be a number"),
        ("align.samples=null", "at least 1"),
        ("batch_size=0", "at least 1"),
        ("train.batch_size=1000", "rows to train on, too few for one batch: lower train.batch_size"),
        ("train.accumulation=5", "train.batch_size=4 cannot be cut into train.accumulation=5 pieces"),
        ("limit=2.5", "at least 1, or null for the whole split"),
        ("seed=-1", "^seed=-1: must be a whole number of at least 0"),
        ("engine=fast", "engine='fast' does not exist"),
        ("split=validation", "choose train"),
        ("dtype=float16", "choose one of float32"),
        ("bild=large_only", "choose bild=big_little"),
        ("small.aligned=true", "choose align.init"),
        ("results=7", "^results=7: give a folder"),
        ("results=null", "^results=None: give a folder"),
        ("large.path=nowhere/large", "nowhere/large"),
    ],
)
def test_bad_values_are_one_line(here, override, message):
    with pytest.raises(UserError, match=message):
        run(*override.split())
    assert not (here / "checkpoints").exists()


def teacher(tokenizer, batch_size, engine="hf"):
    large = LoadedModel(tiny_t5(3, vocab=len(tokenizer)), tokenizer, "large", "large")
    return Teacher(large=large, engine=engine, batch_size=batch_size, processes=Processes())


def settings(folder, **changes):
    values = {
        "method": "sequence",
        "divergence": "forward_kl",
        "beta": 0.5,
        "distill_temperature": 1.0,
        "top_k": None,
        "student_fraction": 0.0,
        "init": "finetuned",
        "generation_max_length": None,
        "temperature": 0.0,
        "samples": 1,
        "shard_rows": 4,
        "report_limit": None,
        "shortlist_min_count": 1,
        "outputs": str(folder),
    }
    return AlignSettings(**{**values, **changes})


@pytest.fixture
def task():
    return Task(name="t", version=1, metric="bleu", origin=None, source_length=32, target_length=6)


PAIRS = Dataset.from_dict({"source": SOURCES, "target": TARGETS})


def test_sampled_outputs_depend_on_the_seed_and_not_on_the_batch(tmp_path, tokenizer, task):
    """Nor on whether rows are given other sources (static) or batches end together (hf)."""
    drawn = {"temperature": 1.0, "samples": 3}
    rows = [
        teacher(tokenizer, batch_size, engine).answer(task, "train", PAIRS, settings(folder, **drawn), seed).rows
        for folder, batch_size, engine, seed in (
            (tmp_path / "a", 2, "hf", 0),
            (tmp_path / "b", 7, "hf", 0),
            (tmp_path / "c", 2, "static", 0),
            (tmp_path / "d", 5, "static", 0),
            (tmp_path / "e", 7, "static", 1),
        )
    ]
    assert all(one.to_list() == rows[0].to_list() for one in rows[1:4])
    assert rows[0]["tokens"][:] != rows[4]["tokens"][:]
    assert rows[0]["index"][:4] == [0, 0, 0, 1]
    assert len({tuple(tokens) for tokens in rows[0]["tokens"][:3]}) > 1, "samples of one input should differ"


def test_greedy_outputs_do_not_depend_on_the_seed(tmp_path, tokenizer, task):
    folder = settings(tmp_path / "a")
    one = teacher(tokenizer, 3).answer(task, "train", PAIRS, folder, 0)
    refilled = teacher(tokenizer, 2, "static").answer(task, "train", PAIRS, settings(tmp_path / "b"), 0)
    assert one.rows.to_list() == refilled.rows.to_list()
    other = teacher(tokenizer, 3).answer(task, "train", PAIRS, folder, 1)
    assert one.rows.to_list() == other.rows.to_list()
    assert "seed" not in one.identity


def test_outputs_may_be_shorter_or_longer_than_the_task_s_targets(tmp_path, tokenizer, task):
    for longest in (2, 9):
        limited = settings(tmp_path / str(longest), generation_max_length=longest)
        outputs = teacher(tokenizer, 3).answer(task, "train", PAIRS, limited, 0)
        assert max(map(len, outputs.rows["tokens"])) == longest


def test_labels_are_the_tokens_that_the_large_model_wrote(tokenizer, task):
    # Split otherwise than the tokenizer would, and one longer than task.target_length and cut: no EOS is added.
    letters = [*tokenizer.convert_tokens_to_ids(list("dog")), 1]
    cut = [5] * 9
    rows = Dataset.from_dict({"source": SOURCES[:2], "target": ["dog", "x"], "tokens": [letters, cut]})
    encoded = training_rows(rows, tokenizer, task)
    assert encoded["labels"][:] == [letters, cut]
    assert encoded["input_ids"][:] == tokenizer(SOURCES[:2])["input_ids"]
    assert encoded.column_names == ["input_ids", "attention_mask", "labels"]
