"""Every YAML under conf/ composes, and what it describes can be built; a misspelt key fails."""

from pathlib import Path

import pytest
from hydra import MissingConfigException
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import bild
from pipelines.calibration.grid import points
from pipelines.cli import UserError
from pipelines.decoding.config import instantiated
from pipelines.decoding.scoring import HEADLINE
from pipelines.models.loading import Model
from pipelines.models.sources import SourceConfig
from pipelines.training.build import training_arguments
from tests.conf import ROOT, composed

ROOTS = sorted(path.stem for path in (ROOT / "conf").glob("*.yaml"))
NO_MODELS = ("bigram", "early_exit", "prompt_lookup")
FINETUNE_OVERLAYS = {"finetune_grid", "finetune_grid_large", "from_scratch"}
PAPER_ROWS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*-*.yaml"))


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize("root", ROOTS)
def test_every_entry_point_has_a_config_and_every_config_an_entry_point(root: str) -> None:
    assert (ROOT / "pipelines" / f"{root}.py").exists()
    assert composed(root)


@pytest.mark.parametrize("name", names("task"))
def test_tasks(name: str) -> None:
    task = instantiate(composed("finetune", f"task={name}").task)
    assert task.name == name
    assert task.metric in HEADLINE


@pytest.mark.parametrize("name", names("model"))
def test_models_and_their_training(name: str, tmp_path: Path) -> None:
    given = ["model.path=a/folder"] if name == "path" else []
    config = composed("finetune", f"model={name}", *given)
    model, settings = instantiate(config.model), instantiate(config.train)
    assert isinstance(model, Model)
    assert model.name == ("folder" if name == "path" else name)
    assert config.out == f"checkpoints/toy_de_en/{model.name}"
    arguments = training_arguments(settings, tmp_path)
    assert arguments.max_steps == config.model.max_steps
    assert arguments.learning_rate == pytest.approx(float(config.model.learning_rate))


@pytest.mark.parametrize(
    ("name", "exits"),
    [
        ("mt5-small-early-exit", {1: 1, 8: 1}),
        ("mt5-small-calm", {layer: layer for layer in range(1, 9)}),
        ("tiny-large-early-exit", {1: 1, 7: 1}),
        ("mt5-small", None),
    ],
)
def test_exits_of_a_model_are_those_of_its_training(name, exits) -> None:
    assert instantiate(composed("finetune", f"model={name}").train).exits == exits
    given = instantiate(composed("finetune", f"model={name}", "train.exits={2: 3, 8: 5}").train).exits
    assert given == {2: 3, 8: 5}


@pytest.mark.parametrize(
    ("path", "name"), [("google/t5-v1_1-small", "t5-v1_1-small"), ("models/mine/", "mine"), ("mine", "mine")]
)
def test_any_model_goes_by_the_last_part_of_its_path(path: str, name: str) -> None:
    assert composed("finetune", "model=path", f"model.path={path}").out == f"checkpoints/toy_de_en/{name}"
    pair = composed("evaluate", "large=path", f"large.path={path}", "small=path", "small.path=b", "small.name=c")
    assert (pair.large.name, pair.small.name) == (name, "c")


@pytest.mark.parametrize("role", ["large", "small"])
def test_every_model_can_be_either_half_of_a_pair(role: str) -> None:
    assert set(names(role)) - set(names("model")) == set(NO_MODELS if role == "small" else [])
    for name in names("model"):
        included = OmegaConf.to_container(composed("evaluate", f"{role}={name}")[role])
        assert included == OmegaConf.to_container(composed("finetune", f"model={name}").model)


@pytest.mark.parametrize("name", NO_MODELS)
def test_a_small_side_without_a_model(name: str) -> None:
    source = instantiate(composed("evaluate", f"small={name}").small)
    assert isinstance(source, SourceConfig)
    assert source.name == name


@pytest.mark.parametrize("name", names("bild"))
def test_policies(name: str) -> None:
    policy = instantiate(composed("evaluate", f"bild={name}").bild)
    assert policy.uses_large or policy.uses_small


@pytest.mark.parametrize("name", PAPER_ROWS)
def test_rows_of_the_paper(name: str) -> None:
    config = composed("evaluate", f"experiment={name}")
    policy, task = instantiate(config.bild), instantiate(config.task)
    large, small = instantiate(config.large), instantiate(config.small)
    data, kind = name.split("-")[:2]
    assert task.name.startswith({"cnndm": "cnn"}.get(data, data))
    assert large.path.startswith("kssteven/")
    assert large.tokenizer == small.tokenizer
    assert small.path.endswith("-bild-aligned") == (kind == "aligned")
    assert 0.1 <= policy.fallback <= 0.9
    assert 1 <= policy.rollback <= 10
    assert composed("analyze", f"experiment={name}").task == config.task


def test_the_paper_s_recipe_is_the_default() -> None:
    for name, rate in (("t5-small", 2e-4), ("mt5-small", 2e-4), ("t5-large", 1e-4), ("mt5-large", 1e-4)):
        settings = instantiate(composed("finetune", f"model={name}", "task=xsum").train)
        assert (settings.learning_rate, settings.max_steps, settings.batch_size) == (rate, 500_000, 16)
        assert (settings.schedule, settings.warmup_steps, settings.scale_parameter) == ("constant", 0, False)


def test_the_authors_checkpoints_are_all_there() -> None:
    paths = set()
    for name in PAPER_ROWS:
        config = composed("evaluate", f"experiment={name}")
        paths |= {config.large.path, config.small.path}
        assert config.large.tokenizer == config.small.tokenizer
        assert config.large.tokenizer == ("google/mt5-small" if "mT5" in config.large.path else "google-t5/t5-small")
        assert ("aligned" in config.small.path) == ("unaligned" not in name)
    assert len(PAPER_ROWS) == 16
    assert len(paths) == 12
    assert {path.split("/")[0] for path in paths} == {"kssteven"}


@pytest.mark.parametrize(
    ("name", "task", "thresholds"),
    [
        ("iwslt-unaligned", "iwslt2017", (0.6, 2)),
        ("wmt-aligned", "wmt14", (0.8, 2)),
        ("xsum-aligned-fast", "xsum", (0.4, 5)),
        ("cnndm-unaligned-fast", "cnn_dailymail", (0.2, 6)),
    ],
)
def test_published_rows(name, task, thresholds) -> None:
    config = composed("evaluate", f"experiment={name}")
    policy = instantiate(config.bild)
    assert (config.task.name, config.split) == (task, "validation")
    assert (policy.fallback, policy.rollback) == thresholds
    assert isinstance(instantiate(config.small), Model)


SPECULATIVE_ROWS = {
    f"speculative_{data}_{size}_t{temperature}": (data, size, temperature, draft_length)
    for (data, temperature), lengths in {
        ("wmt", 0): (7, 7, 7),
        ("wmt", 1): (7, 5, 3),
        ("cnndm", 0): (5, 5, 3),
        ("cnndm", 1): (5, 3, 3),
    }.items()
    for size, draft_length in zip(("small", "base", "large"), lengths, strict=True)
}
"""Leviathan et al. 2023, their table of measured speedups."""
CASCADE_ROWS = {
    f"cascade_{data}_{size}": (data, size, lengths)
    for data, lengths in {"wmt": (80, 80), "xsum": (1024, 64), "cnndm": (2048, 128)}.items()
    for size in ("large", "xl")
}
"""Narasimhan et al. 2025: pairs of T5 v1.1, source and target lengths."""
TASKS = {"wmt": "wmt14_en_de", "xsum": "xsum", "cnndm": "cnn_dailymail"}


@pytest.mark.parametrize("name", SPECULATIVE_ROWS)
def test_rows_of_speculative_decoding(name: str) -> None:
    data, size, temperature, draft_length = SPECULATIVE_ROWS[name]
    config = composed("evaluate", f"experiment={name}")
    policy, task = instantiate(config.bild), instantiate(config.task)
    assert policy == bild.Speculative(draft_length=draft_length)
    assert task.name == TASKS[data]
    assert (config.large.path, config.small.path) == ("google/t5-v1_1-xxl", f"google/t5-v1_1-{size}")
    assert (config.do_sample, config.temperature) == (temperature == 1, 1.0)


@pytest.mark.parametrize("name", CASCADE_ROWS)
def test_rows_of_speculative_cascades(name: str) -> None:
    data, size, lengths = CASCADE_ROWS[name]
    config = composed("evaluate", f"experiment={name}", "bild.rule=token_v3", "temperature=0.5")
    policy, task = instantiate(config.bild), instantiate(config.task)
    assert (policy.rule, policy.draft_length, policy.bonus) == ("token_v3", 5, "target")
    assert (task.name, task.source_length, task.target_length) == (TASKS[data], *lengths)
    assert (config.large.path, config.small.path) == (f"google/t5-v1_1-{size}", "google/t5-v1_1-small")
    assert (config.split, config.latency_limit, config.do_sample) == ("validation", 500, True)
    # The systems that it is compared with, by their names.
    others = {"token_cascade": bild.TokenCascade, "speculative": bild.Speculative, "big_little": bild.BigLittle}
    for other, kind in others.items():
        assert isinstance(instantiate(composed("evaluate", f"experiment={name}", f"bild={other}").bild), kind)


@pytest.mark.parametrize(
    ("overlay", "model", "rates"),
    [("finetune_grid", "t5-small", "5e-5,1e-4,2e-4,5e-4"), ("finetune_grid_large", "t5-large", "5e-5,1e-4")],
)
def test_the_papers_grids_give_each_rate_its_folder(overlay, model, rates) -> None:
    for rate in rates.split(","):
        words = [f"experiment={overlay}", f"model={model}", "task=xsum", f"train.learning_rate={rate}"]
        config = composed("finetune", *words, hydra=True)
        assert config.hydra.sweeper.params == {"train.learning_rate": rates}
        assert config.out == f"checkpoints/xsum/{model}-lr{float(rate)}"
        assert instantiate(config.train).learning_rate == float(rate)


@pytest.mark.parametrize("name", ["cascade_xsum_large", "cascade_cnndm_xl"])
def test_summaries_of_the_cascades_paper_are_scored_by_rouge_2(name: str) -> None:
    assert HEADLINE[composed("evaluate", f"experiment={name}").task.metric] == "rouge2"


@pytest.mark.parametrize(("data", "task"), [("iwslt", "iwslt2017"), ("wmt", "wmt14")])
def test_the_papers_early_exit_and_its_baseline(data, task) -> None:
    config = composed("evaluate", f"experiment=early_exit_{data}", "bild.fallback=0.2", "bild.rollback=0.5")
    assert instantiate(config.small).layers == 1
    assert instantiate(config.large).exits == {1: 1, 8: 1}
    assert instantiate(config.bild) == bild.BigLittle(fallback=0.2, rollback=0.5)
    baseline = composed("evaluate", f"experiment=calm_{data}", "bild.threshold=0.95")
    assert instantiate(baseline.bild) == bild.Calm(confidence="cosine", threshold=0.95)
    assert instantiate(baseline.large).name == "mt5-small-calm"
    assert {(one.task.name, one.split) for one in (config, baseline)} == {(task, "validation")}


@pytest.mark.parametrize("name", sorted(FINETUNE_OVERLAYS))
def test_overlays_of_the_training(name: str) -> None:
    config = composed("finetune", "model=tiny-small", f"experiment={name}")
    assert instantiate(config.train)
    assert instantiate(config.model)


@pytest.mark.parametrize("root", [root for root in ROOTS if root != "export"])
def test_an_experiment_that_is_not_there_fails(root: str) -> None:
    with pytest.raises(MissingConfigException, match="experiment/none"):
        composed(root, "experiment=none")


@pytest.mark.parametrize("root", ROOTS)
def test_a_misspelt_key_fails(root: str) -> None:
    with pytest.raises(ConfigCompositionException):
        composed(root, "sead=1")


@pytest.mark.parametrize(
    "override",
    [
        "bild.falback=0.6",
        "task.prefx=x",
        "large.pth=x",
        "small.alligned=true",
        "bild=none",
        "task=none",
    ],
)
def test_a_misspelt_field_or_option_fails(override: str) -> None:
    with pytest.raises((ConfigCompositionException, MissingConfigException), match=r"falback|prefx|pth|alligned|none"):
        composed("evaluate", override)


def test_the_coverage_of_calibrations_composes() -> None:
    config = composed("calibrate", "experiment=calibrate_coverage")
    assert config.coverage.resplits == 500
    chosen = points(config)
    assert sum(point.policy.lossless for point in chosen) == 2
    assert len(chosen) == 15


def test_a_class_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^bild\._target_: there is no bild\.TopK"):
        instantiated(OmegaConf.create({"bild": {"_target_": "bild.TopK"}}), "bild")
