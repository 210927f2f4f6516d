"""Every system on one pair, from the command line to the picture, on a tiny random pair."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import bild
from bild.policies.base import Policy
from bild.policies.calm import CONFIDENCES
from bild.policies.deferral import RULES
from pipelines import compare
from pipelines.cli import UserError
from pipelines.comparison.systems import points
from pipelines.decoding.decode import BatchDecoder, Decoding
from pipelines.decoding.grid import possible
from pipelines.evaluation import latency
from tests.commits import LATER, committed_during
from tests.conf import composed
from tests.evaluation.conftest import models, overrides, pair, pair_folder, tokenizer  # noqa: F401 (fixtures)

SYSTEMS = {
    "big_little": {"_target_": "bild.BigLittle", "fallback": [0.2, 0.9], "rollback": [0.5, 2.0]},
    "authors": {"_target_": "bild.BigLittle", "rule": "authors"},
    "speculative": {"_target_": "bild.Speculative", "draft_length": 3},
}


@pytest.fixture
def command(overrides) -> list[str]:  # noqa: F811
    """Three systems of five points in place of the config's own."""
    renamed = {"mine": SYSTEMS["big_little"], **{f"{name}_here": SYSTEMS[name] for name in ("authors", "speculative")}}
    dropped = [f"systems.{name}=null" for name in composed("compare").systems]
    own = [f"+systems.{name}={json.dumps(node).replace(chr(34), '')}" for name, node in renamed.items()]
    return [*(word for word in overrides if not word.startswith("bild.")), *dropped, *own]


def found(folder: Path) -> tuple[Path, dict]:
    [path] = folder.rglob("compare-*.json")
    return path, json.loads(path.read_text())


def test_every_system_at_every_temperature(command, tmp_path, monkeypatch, capsys):
    committed_during(monkeypatch, latency, "measure")
    compare.main(composed("compare", *command, "seeds=2"))
    path, content = found(tmp_path / "results")
    assert content["provenance"]["git"] != LATER, "it is not the code that ran"
    greedy, sampled = content["panels"]
    assert (greedy["temperature"], sampled["temperature"]) == (0, 1)
    names = [entry["method"] for entry in greedy["methods"]]
    assert names[:2] == ["large", "small"]
    assert names[2:] == [
        "mine 0.2, 0.5",
        "mine 0.2, 2.0",
        "mine 0.9, 0.5",
        "mine 0.9, 2.0",
        "authors here",
        "speculative here",
    ]
    assert [entry["method"] for entry in sampled["methods"]] == [name for name in names if name != "authors here"]
    assert sampled["left_out"][0].startswith("authors here: rule='authors' is greedy only")
    by_name = {entry["method"]: entry for entry in greedy["methods"]}
    assert by_name["speculative here"]["rates"]["exact_match_with_large"] == 1
    assert by_name["mine 0.2, 0.5"]["policy"]["fallback"] == 0.2
    assert by_name["large"]["latency"]["speedup"]["value"] == 1
    decodings = [(panel["decoding"]["do_sample"], panel["decoding"]["temperature"]) for panel in (greedy, sampled)]
    assert decodings == [(False, 0), (True, 1)]
    assert (greedy["run"]["seeds"], sampled["run"]["seeds"]) == ([0], [0, 1]), "greedy texts are written once"
    assert [entry["method"] for entry in greedy["methods"] if entry["lossless"]] == ["large", "speculative here"]
    assert {entry["same_rows_as"] for entry in greedy["methods"]} <= {None, *names}
    out = capsys.readouterr().out
    assert "left out: authors here" in out
    assert out.splitlines()[-1].endswith(".html")
    html = path.with_suffix(".html").read_text()
    for word in ("<svg", "Greedy", "Sampled at temperature 1", "speculative here", "Left out: authors"):
        assert word in html
    assert "<b>mine, authors here</b>: The small model drafts tokens" in html
    picture = path.with_suffix(".svg").read_text()
    assert picture.startswith("<svg")
    assert "currentColor" not in picture
    assert not list((tmp_path / "results" / "cache" / "timing").iterdir())


EXIT = {"_target_": "pipelines.models.sources.EarlyExit", "name": "early_exit", "layers": 1, "shortlist": False}
LOOKUP = {"_target_": "pipelines.models.sources.PromptLookup", "name": "lookup", "max_ngram": 2, "min_ngram": 1}
BIGRAM = {"_target_": "pipelines.models.sources.Bigram", "name": "b", "texts": "auto", "outputs": "no", "limit": None}
SOURCED = {
    "alone": {"_target_": "bild.SmallOnly", "small": EXIT},
    "early_exit": {"_target_": "bild.BigLittle", "small": {**EXIT, "layers": [1, 2]}, "fallback": [0, 2]},
    "exact": {"_target_": "bild.Speculative", "small": EXIT},
    "calm": {"_target_": "bild.Calm", "threshold": [0, 2], "decay": None},
    "lookup": {"_target_": "bild.Speculative", "small": LOOKUP},
    "bigram": {"_target_": "bild.Speculative", "small": BIGRAM},
    "pair": {"_target_": "bild.Speculative"},
}


def test_systems_that_bring_what_drafts_for_them(command, tmp_path):
    words = [word for word in command if not word.startswith("+systems")]
    given = composed("compare", *words, "temperatures=[0]")
    OmegaConf.set_struct(given, False)
    compare.main(OmegaConf.merge(given, {"systems": SOURCED}))
    [panel] = found(tmp_path / "results")[1]["panels"]
    by_name = {entry["method"]: entry for entry in panel["methods"]}
    assert [one for one in by_name if one not in ("large", "small")] == [
        *("alone", "early exit 1, 0", "early exit 1, 2", "exact", "calm 0", "calm 2", "lookup", "pair")
    ]
    for name in ("exact", "calm 2", "lookup", "pair"):
        assert by_name[name]["rates"]["exact_match_with_large"] == 1
    exit_alone, all_drafts, none = by_name["alone"], by_name["early exit 1, 0"], by_name["early exit 1, 2"]
    assert exit_alone["counts"]["large_steps"] == 0
    assert exit_alone["quality"]["score"] != by_name["small"]["quality"]["score"]
    assert all_drafts["counts"]["drafted"] > none["counts"]["drafted"] == 0
    assert by_name["exact"]["counts"] != by_name["pair"]["counts"]  # another side drafts
    assert by_name["calm 0"]["rates"]["mean_layers"] == 1
    assert (exit_alone["drafts"]["name"], by_name["lookup"]["drafts"]["name"]) == ("early_exit", "lookup")
    assert by_name["pair"]["drafts"] is by_name["large"]["drafts"] is None
    assert by_name["pair"]["predicted_speedup"] > 0
    assert by_name["exact"]["predicted_speedup"] is None  # c is the small model's
    reasons = dict(reason.split(": ", 1) for reason in panel["left_out"])
    assert reasons.keys() == {"bigram", "early exit 2, 0", "early exit 2, 2"}
    assert all("must leave out a layer" in reasons[f"early exit 2, {fallback}"] for fallback in (0, 2))
    assert reasons["bigram"].startswith("the bigram table is counted in training targets, but")


def test_one_plane_has_every_system():
    """All that policies can be told to be. The oracles, which cost more than the large model, are for analysis."""
    config = composed("compare", "experiment=compare_early_exit", "task=multi30k")
    made = points(config.systems)
    policies = [point.policy for point in made]
    kinds = {one for one in vars(bild).values() if isinstance(one, type) and issubclass(one, Policy)}
    assert {type(policy) for policy in policies} == kinds - {bild.LargeOnly, bild.OracleDiff, bild.OracleMixing}

    def said(kind: type, field: str) -> set:
        return {getattr(policy, field) for policy in policies if isinstance(policy, kind)}

    assert said(bild.SpeculativeCascade, "rule") == set(RULES)
    assert said(bild.Calm, "confidence") == set(CONFIDENCES)
    assert said(bild.BigLittle, "rule") == {"paper", "authors"}
    assert said(bild.BigLittle, "verify_eos") == {True, False}
    assert said(bild.Speculative, "beta") == {None, "normalized"}
    assert len(said(bild.SequenceCascade, "quantile") - {None}) == 1
    assert len({point.name for point in made}) == len(made)
    brought = {point.system: point.drafts for point in made if point.drafts is not None}
    assert brought.keys() == {"prompt_lookup", "bigram", "first_layer_alone", "early_exit", "early_exit_exact"}
    assert brought["early_exit"].layers in config.large.exits
    assert brought["bigram"].outputs == "checkpoints/multi30k/tiny-large-early-exit-outputs"


def test_a_killed_comparison_goes_on(command, tmp_path, monkeypatch):
    decoded = []
    real = latency._time

    def dies(decoder, policy, name, inputs, row):
        decoded.append(name)
        if len(decoded) == 11:
            raise KeyboardInterrupt
        return real(decoder, policy, name, inputs, row)

    monkeypatch.setattr(latency, "_time", dies)
    with pytest.raises(KeyboardInterrupt):
        compare.main(composed("compare", *command, "temperatures=[1]", "seeds=2"))
    decoded.clear()
    monkeypatch.setattr(bild, "generate", None)  # the texts of both seeds are there, and so is the first row's time

    def second(decoder, policy, name, inputs, row):
        decoded.append(row)
        monkeypatch.undo()
        return real(decoder, policy, name, inputs, row)

    monkeypatch.setattr(latency, "_time", second)
    monkeypatch.setattr(latency, "_warm", lambda *_: None)
    compare.main(composed("compare", *command, "temperatures=[1]", "seeds=2"))
    assert len(decoded) == 1
    _, content = found(tmp_path / "results")
    assert content["panels"][0]["run"]["timed_examples"] == 2


def test_points_are_all_combinations_and_named_by_what_varies():
    made = points(OmegaConf.create({**SYSTEMS, "gone": None}))
    assert [point.name for point in made] == [
        "big little 0.2, 0.5",
        "big little 0.2, 2.0",
        "big little 0.9, 0.5",
        "big little 0.9, 2.0",
        "authors",
        "speculative",
    ]
    assert made[2].policy == bild.BigLittle(fallback=0.9, rollback=0.5)


def test_what_mode_or_pair_cannot_do_is_left_out_by_name(pair):  # noqa: F811
    made = points(OmegaConf.create({**SYSTEMS, "whole": {"_target_": "bild.SequenceCascade", "threshold": -1.0}}))

    def left(pair, **sampling):
        decoder = BatchDecoder(pair.large, pair.small, pair.tokenizer, Decoding(max_new_tokens=4, **sampling))
        return possible(made, [point.name for point in made], lambda point: decoder.check(point.policy))

    assert left(pair) == (made, [])
    assert left(pair, do_sample=True, temperature=0.0) == (made, [])
    fine, reasons = left(pair, do_sample=True)
    assert len(fine) == 6
    assert [reason.partition(":")[0] for reason in reasons] == ["authors"]
    drafts = replace(pair, small=bild.PromptLookup())
    fine, reasons = left(drafts)
    assert [point.name for point in fine] == ["speculative"]
    assert all("PromptLookup(max_ngram=3, min_ngram=1) only guesses" in reason for reason in reasons[:-1])
    assert reasons[-1].startswith("whole: PromptLookup(max_ngram=3, min_ngram=1) does not write whole texts")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("systems.speculative=3", "systems.speculative: names no policy"),
        ("+systems.speculative.lenience=[0.5,2]", "systems.speculative: lenience=2 must be in"),
        ("systems.speculative.draft_length=[2,x]", "systems.speculative: draft_length=x must be"),
        ("+systems.x={_target_: bild.PromptLookup}", "systems.x: bild.PromptLookup is no policy"),
        ("+systems.speculative.small={_target_: bild.EarlyExit}", "systems.speculative.small: is no draft source"),
        ("+systems.speculative.small=tiny-small", "systems.speculative.small: is no draft source"),
        ("systems.prompt_lookup.small.max_ngram=[2,0]", "max_ngram=0 must be"),
        ("temperatures=[]", r"temperatures=\[\]: give a list of numbers"),
        ("temperatures=[0,-1]", "give a list of numbers"),
        ("temperatures=1", "temperatures=1: give a list"),
        ("split=nowhere", "split"),
        ("latency_limit=0", "latency_limit=0"),
        ("seeds=0", "seeds=0: must be a whole number of at least 1"),
    ],
)
def test_mistakes_are_one_line_before_any_model_loads(override, told, monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.decoding.pair.load_pair", None)
    with pytest.raises(UserError, match=told):
        compare.main(composed("compare", override, f"out={tmp_path}"))
