"""Which weights a pipeline gets, and what it says when there are none."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging

from pipelines.cli import UserError
from pipelines.models import hub, loading, manifest
from tests.training import tiny

SHAPE = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 1}


def save(folder: Path, seal: bool = True, **changes) -> Path:
    tiny.new_model(**changes).save_pretrained(folder)
    tiny.TOKENIZER.save_pretrained(folder)
    if seal:
        manifest.write(folder)
    return folder


def model(tmp_path: Path, **changes) -> loading.Model:
    return loading.Model(**{"name": "tiny", "path": str(tmp_path / "pretrained")} | changes)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a pre-trained model of one layer."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "pretrained", seal=False)
    return tmp_path


def test_the_best_there_is_for_each_role(here: Path) -> None:
    described, tuned = model(here), here / "checkpoints" / "task" / "tiny"
    for role in ("large", "small"):
        loaded = loading.load(described, "task", role)
        assert (loaded.path, loaded.model.config.num_layers) == (str(here / "pretrained"), 1)
        assert loaded.note.startswith("tiny: not fine-tuned on task yet, so pre-trained weights from ")
    save(tuned, num_layers=2)
    for role, note in (("large", ""), ("small", ", not aligned")):
        loaded = loading.load(described, "task", role)
        assert loaded.model.config.num_layers == 2
        assert loaded.note == f"tiny: fine-tuned checkpoint checkpoints/task/tiny{note}"
    save(tuned.with_name("tiny-aligned"), num_layers=3)
    layers = [loading.load(described, "task", role).model.config.num_layers for role in ("finetune", "large", "small")]
    assert layers == [1, 2, 3]
    assert loading.load(model(here, aligned=False), "task", "small").model.config.num_layers == 2
    assert loading.load(described, "other", "small").model.config.num_layers == 1


def test_an_unfinished_checkpoint_is_not_used(here: Path) -> None:
    save(here / "checkpoints" / "task" / "tiny", seal=False, num_layers=2)
    assert loading.load(model(here), "task", "large").model.config.num_layers == 1


def test_a_damaged_checkpoint_is_an_error_and_not_replaced(here: Path) -> None:
    tuned = save(here / "checkpoints" / "task" / "tiny")
    with (tuned / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(UserError, match=r"checkpoints/task/tiny: not a whole checkpoint, model\.safetensors has"):
        loading.load(model(here), "task", "large")


def test_aligned_true_demands_the_aligned_one(here: Path) -> None:
    with pytest.raises(UserError, match=r"small\.aligned=true: there is no finished checkpoint"):
        loading.load(model(here, aligned=True), "task", "small")


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"step": 300, "identity": {"training rows": 4800}}, " (300 steps, 4,800 rows)"),
        ({"step": 1, "identity": {"training rows": 1}}, " (1 step, 1 row)"),
        ({"step": 300}, " (300 steps)"),
        ({"step": "many", "identity": {}}, ""),
    ],
)
def test_the_note_says_how_far_a_checkpoint_was_trained(about, told, here: Path) -> None:
    aligned = save(here / "checkpoints" / "task" / "tiny-aligned")
    manifest.write(aligned, **about)
    _, note = loading.choose_checkpoint(model(here), "task", "small")
    assert note == f"tiny: aligned checkpoint checkpoints/task/tiny-aligned{told}"
    (aligned / manifest.NAME).write_text("[]")
    assert loading.choose_checkpoint(model(here), "task", "small")[1].endswith("tiny-aligned")


def test_reading_weights_shows_no_bar(here: Path, capsys: pytest.CaptureFixture) -> None:
    logging.enable_progress_bar()
    loading.load(model(here), "task", "finetune")
    tiny.new_model().save_pretrained(here / "again")
    assert capsys.readouterr().err == ""
    assert not are_progress_bars_disabled(), "a download of some gigabytes must show one"


def test_what_the_user_gives_decides_the_identity(here: Path) -> None:
    pretrained = loading.identity(model(here, revision="main"))
    assert pretrained == {
        "model.name": "tiny",
        "model.init": "pretrained",
        "model.path": str(here / "pretrained"),
        "model.revision": "main",
    }
    scratch = loading.identity(model(here, init="scratch", architecture=SHAPE, vocabulary_size=300))
    shape = {f"model.architecture.{name}": value for name, value in SHAPE.items()}
    assert scratch == {"model.name": "tiny", "model.init": "scratch", "model.vocabulary_size": 300, **shape}


def test_new_weights_are_the_seed_s(here: Path) -> None:
    described = model(here, init="scratch", architecture=SHAPE, vocabulary_size=300)
    texts = [*tiny.WORDS] * 20
    one, same, other = (loading.load(described, "task", "finetune", texts, seed) for seed in (1, 1, 2))
    assert torch.equal(one.model.shared.weight, same.model.shared.weight)
    assert not torch.equal(one.model.shared.weight, other.model.shared.weight)
    assert one.tokenizer.get_vocab() == same.tokenizer.get_vocab()
    assert one.model.config.vocab_size == len(one.tokenizer)
    assert not one.model.training


def test_transformers_decodes_new_weights_with_more_layers_than_their_encoder_has(here: Path) -> None:
    deep = {**SHAPE, "num_decoder_layers": SHAPE["num_layers"] + 1}
    made = loading.load(
        model(here, init="scratch", architecture=deep, vocabulary_size=300), "task", "finetune", [*tiny.WORDS] * 20, 1
    )
    assert made.model.generate(torch.full((1, 3), 5), max_new_tokens=4, min_new_tokens=4).shape[1] == 5


@pytest.mark.parametrize("role", loading.ROLES)
def test_weights_stored_in_bfloat16_are_loaded_in_float32(here: Path, role: str) -> None:
    tiny.new_model().bfloat16().save_pretrained(here / "halved")
    described = model(here, path="halved", tokenizer=str(here / "pretrained"))
    assert loading.load(described, "task", role).model.dtype == torch.float32


def test_the_tokenizer_may_lie_elsewhere(here: Path) -> None:
    tiny.new_model().save_pretrained(here / "bare")
    with pytest.raises(UserError, match=r"bare: its tokenizer has \d+ tokens, but the model \d+; .*model\.tokenizer"):
        loading.load(model(here, path=str(here / "bare")), "task", "large")
    loaded = loading.load(model(here, path=str(here / "bare"), tokenizer=str(here / "pretrained")), "task", "large")
    assert loaded.tokenizer.get_vocab() == tiny.TOKENIZER.get_vocab()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (None, r"model\.path is not set"),
        ("/nowhere/at/all", "no such folder; paths start where the command runs"),
        ("./nowhere", "no such folder"),
        ("pretrained/nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("empty", r"empty: this folder holds no model and no tokenizer \(no config\.json\)"),
    ],
)
def test_what_is_not_there_is_one_line(path, told, here) -> None:
    (here / "empty").mkdir()
    with pytest.raises(UserError, match=told) as caught:
        loading.load(model(here, path=path), "task", "finetune")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (hub.HFValidationError("bad id"), "no such folder here and no such model on the Hugging Face hub"),
        (ConnectionError("no route\nmore"), r"the Hugging Face hub cannot be reached \(no route\)"),
    ],
)
def test_what_the_hub_answers_is_one_line(failure, told, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(hub.HfApi, "model_info", fail)
    with pytest.raises(UserError, match=told):
        hub.locate("owner/name")


def test_without_a_network_what_was_downloaded_before_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub.HfApi, "model_info", fail)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: "/cache/config.json")
    assert hub.locate("owner/name").offline


def test_weights_that_are_a_pickle_are_not_read(here: Path) -> None:
    folder = here / "pickled"
    tiny.new_model().config.save_pretrained(folder)
    torch.save(tiny.new_model().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        loading.load(model(here, path=str(folder)), "task", "large")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        (
            "config.json",
            {"num_layers": 3},
            r"its files lack \d+ weights that its config\.json asks for, such as encoder",
        ),
        ("config.json", {"d_ff": 48}, r"its files lack 4 weights that its config\.json asks for, such as decoder"),
        ("config.json", {"d_model": "wide"}, r"the model cannot be loaded \(Validation error"),
        (
            "config.json",
            {"model_type": "gpt2"},
            ".*; it must be an encoder-decoder or decoder-only one",
        ),
        ("tokenizer.json", {"model": None}, r"the tokenizer cannot be loaded \("),
    ],
)
def test_files_that_do_not_fit_together_are_one_line(file, change, told, here: Path) -> None:
    path = here / "pretrained" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=f"pretrained: {told}") as caught:
        loading.load(model(here), "task", "large")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"init": "random"}, r"model\.init=random: choose one of pretrained, scratch"),
        ({"init": "scratch"}, r"model\.init=scratch: tiny has no architecture and vocabulary_size"),
        ({"aligned": "yes"}, "aligned=yes: choose auto, true or false"),
        ({"path": 1}, r"""model\.path=1: is not text; quote it twice, 'model\.path="1"'"""),
        ({"revision": 7}, r"model\.revision=7: is not text"),
        ({"name": None}, r"model\.name=None: is not text"),
        *(({"name": name}, "names a folder of checkpoints") for name in ("", ".", "..", "a/b")),
    ],
)
def test_bad_descriptions_are_refused(change, told, tmp_path) -> None:
    with pytest.raises(UserError, match=told):
        model(tmp_path, **change)
