"""What the papers go through: every sweep's jobs compose and are the published settings; DistillSpec's training."""

import math
import re
import shlex
from typing import Any

import pytest
from hydra.utils import instantiate

import bild
from pipelines.alignment.settings import AlignSettings
from tests.conf import ROOT, composed, jobs

SWEEPS = {
    **{
        f"[{data}-{kind},sweep_thresholds_{what}]": {"fallback": fallbacks, "rollback": rollbacks}
        for what, datas, fallbacks, rollbacks in (
            ("translation", ("iwslt", "wmt"), [0.5, 0.6, 0.7, 0.8, 0.9], list(range(1, 11))),
            ("summarization", ("xsum", "cnndm"), [0.2, 0.3, 0.4, 0.5, 0.6], list(range(2, 7))),
        )
        for data in datas
        for kind in ("aligned", "unaligned")
    },
    "early_exit_iwslt": {"fallback": [0.2, 0.4, 0.6, 0.8], "rollback": [0.5, 1.0, 1.5]},
    "early_exit_wmt": {"fallback": [0.2, 0.4, 0.6, 0.8], "rollback": [0.5, 1.0, 1.5]},
    "calm_iwslt": {"threshold": [0.8, 0.9, 0.95, 0.99]},
    "calm_wmt": {"threshold": [0.8, 0.9, 0.95, 0.99]},
    "[cascade_wmt_large,sweep_cascade_rules]": {
        "rule": ["chow", "diff", "opt", "token_v1", "token_v2", "token_v3"],
        "alpha": [0, 0.1, 0.3, 0.5],
    },
    "[cascade_xsum_xl,sweep_cascade_bild]": {"alpha": [0.5, 1, 2, 4]},
    "[cascade_cnndm_large,sweep_token_cascade]": {"alpha": [0.1, 0.2, 0.4, 0.6]},
    "[cascade_wmt_xl,sweep_lossy]": {"lenience": [0, 0.2, 0.5, 0.8]},
    "[cascade_xsum_large,sweep_draft_lengths]": {"draft_length": [3, 5, 7]},
    "[speculative_wmt_small_t1,sweep_lenience]": {"lenience": [0, 0.5, 0.7, 0.9]},
}
"""What each policy of a sweep is: every combination of these fields."""


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_goes_through_the_papers_settings(name: str) -> None:
    fields = SWEEPS[name]
    found = jobs("evaluate", f"experiment={name}")
    assert len({tuple(job) for job in found}) == len(found) == math.prod(map(len, fields.values()))
    # Its keys do not depend on one another: jobs that have every value of each stand for all.
    seen: dict[str, list[Any]] = {field: [] for field in fields}
    for job in covering(found):
        policy = instantiate(composed("evaluate", *job).bild)
        for field, values in seen.items():
            values.append(getattr(policy, field))
    assert {field: sorted(set(values)) for field, values in seen.items()} == {
        field: sorted(values) for field, values in fields.items()
    }


def covering(found: list[list[str]]) -> list[list[str]]:
    """Jobs that hold every override of all of them."""
    chosen: list[list[str]] = []
    for job in found:
        if not set(job) <= {word for one in chosen for word in one}:
            chosen.append(job)
    return chosen


@pytest.mark.parametrize(
    ("system", "kind"),
    [
        ("sweep_cascade_rules", bild.SpeculativeCascade),
        ("sweep_cascade_bild", bild.SpeculativeCascade),
        ("sweep_token_cascade", bild.TokenCascade),
        ("sweep_lossy", bild.Speculative),
    ],
)
def test_systems_of_the_cascades_paper_at_its_temperatures_and_draft_lengths(system: str, kind: type) -> None:
    found = jobs("evaluate", f"experiment=[cascade_cnndm_large,{system},sweep_temperatures,sweep_draft_lengths]")
    assert len(found) == 3 * len(jobs("evaluate", f"experiment=[cascade_cnndm_large,{system},sweep_temperatures]"))
    last = composed("evaluate", *found[-1])
    policy = instantiate(last.bild)
    assert isinstance(policy, kind)
    assert (policy.draft_length, last.temperature, last.do_sample, last.task.target_length) == (7, 1, True, 128)
    assert {word for job in found for word in job if word.startswith("temperature=")} == {
        f"temperature={value}" for value in ("0", "0.1", "0.5", "1")
    }
    if system == "sweep_cascade_bild":
        assert policy.rule == "bild"
    if system == "sweep_token_cascade":
        alone = composed("evaluate", f"experiment=[cascade_cnndm_large,{system}]")
        assert alone.bild.draft_length == 10


def test_lenience_is_what_its_paper_calls_one_less_l() -> None:
    found = jobs("evaluate", "experiment=[speculative_wmt_small_t1,sweep_lenience]")
    kept = [1 - composed("evaluate", *job).bild.lenience for job in found]
    assert kept == pytest.approx([1, 0.5, 0.3, 0.1])


def test_nucleus_sampling_of_the_paper() -> None:
    found = jobs("evaluate", "experiment=[iwslt-aligned,nucleus,sweep_thresholds_translation]")
    assert len(found) == 50
    config = composed("evaluate", *found[0])
    assert (config.do_sample, config.temperature, config.top_p, config.top_k) == (True, 1.0, 0.8, None)
    assert (config.small.path, config.bild.fallback) == ("kssteven/mT5-small-iwslt2017-de-en-bild-aligned", 0.5)


def test_a_bigram_table_drafts_for_speculative_decoding() -> None:
    config = composed("evaluate", "experiment=speculative_wmt_bigram_t0")
    assert instantiate(config.bild) == bild.Speculative(draft_length=3)
    assert instantiate(config.small).texts == "targets"
    assert (config.large.path, config.do_sample) == ("google/t5-v1_1-xxl", False)


@pytest.mark.parametrize(
    ("name", "task"), [("xsum", "xsum"), ("cnndm", "cnn_dailymail"), ("wmt", "wmt14_en_de")], ids=str
)
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd", "total_variation"])
def test_the_training_of_distillspec(name: str, task: str, divergence: str) -> None:
    config = composed("align", f"experiment=distillspec_{name}", f"align.divergence={divergence}")
    settings, training = instantiate(config.align), instantiate(config.train)
    assert isinstance(settings, AlignSettings)
    assert (settings.method, settings.divergence, settings.init) == ("distill", divergence, "finetuned")
    assert (training.batch_size, training.learning_rate, training.warmup_steps) == (32, 3e-4, 5000)
    assert training.max_steps == 300_000
    assert (config.task.name, instantiate(config.bild)) == (task, bild.Speculative(draft_length=7))
    assert (config.large.path, config.small.path) == ("google/t5-v1_1-xl", "google/t5-v1_1-small")


def test_cascades_of_decoder_only_models_on_every_few_shot_task() -> None:
    found = jobs("evaluate", "experiment=cascade_gemma")
    composed_jobs = [composed("evaluate", *job) for job in found]
    assert {config.task.name for config in composed_jobs} == {
        path.stem for path in (ROOT / "conf" / "task").glob("*.yaml") if "\nprompt:" in path.read_text(encoding="utf-8")
    }
    for config in composed_jobs:
        assert isinstance(instantiate(config.bild), bild.SpeculativeCascade)
        assert (config.large.path, config.small.path) == ("google/gemma-2-9b", "google/gemma-2-2b")
    assert len(jobs("evaluate", "experiment=[cascade_gemma,sweep_lossy]")) == 4 * len(found)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_the_command_that_an_overlay_names_composes(name: str) -> None:
    line = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1]
    words = shlex.split(line.removeprefix("# "))
    assert words[:2] == ["python", "-m"]
    overrides = [word for word in words[3:] if word != "-m"]
    assert name in re.findall(r"[\w-]+", next(word for word in overrides if word.startswith("experiment=")))
    assert composed(words[2].removeprefix("pipelines."), *overrides)
