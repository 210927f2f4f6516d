"""A small side without a model, from the command line to the report: nothing stands there that was not measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import bild
from pipelines import align, evaluate, generate
from pipelines.cli import UserError
from pipelines.decoding import decode
from pipelines.decoding.pair import Pair, describe_source, pair_key
from pipelines.evaluation import report, results, table
from pipelines.evaluation.run import describe_task
from tests.conf import composed
from tests.evaluation.conftest import SOURCES, make_task, run
from tests.evaluation.test_fingerprint import BATCH, DECODING, INPUTS

EXACT = ("bild.rollback=0", "bild.verify_eos=true")


@pytest.fixture
def without_small(overrides, tmp_path, monkeypatch) -> list[str]:
    """The command line of the random pair without its small model, in a folder of its own, with training rows."""
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"source": SOURCES[row], "target": SOURCES[row + 1]}) for row in range(30)]
    Path("train.jsonl").write_text("\n".join(rows) + "\n")
    return [*(word for word in overrides if not word.startswith("small.")), "task.data_files.train=train.jsonl"]


@pytest.mark.parametrize("small", ["prompt_lookup", "bigram"])
def test_a_source_is_compared_with_the_large_model_alone(without_small, small, tmp_path, capsys):
    evaluate.main(composed("evaluate", *without_small, *EXACT, f"small={small}"))
    out = capsys.readouterr().out
    assert f"small  {small}: " in out
    assert "so there is no small alone" in out
    assert "small alone" not in out.replace("so there is no small alone", "")
    [path] = (tmp_path / "results" / "made").glob("*.json")
    assert path.name.startswith(f"test-large-{small}-BigLittle-")
    result = results.read(path)
    assert [entry["method"] for entry in result.content["methods"]] == ["large", "policy"]
    assert result.method("policy")["rates"]["exact_match_with_large"] == 1
    assert result.method("policy")["counts"]["drafted"] > 0
    assert (result.content["cost_ratio"], result.method("policy")["predicted_speedup"]) == (None, None)
    assert result.content["models"]["small"]["path"] is None
    html = path.with_suffix(".html").read_text()
    assert "<dt>small alone</dt>" not in html
    assert html.count("<dt>large alone</dt>") == 2
    assert "so there is no small alone" in dict(report.common_facts(result.content))["small"]


def test_lines_are_decoded_with_a_source(without_small, tmp_path, capsys):
    words = [word for word in without_small if not word.startswith(("out=", "latency"))]
    Path("in.txt").write_text("\n".join(SOURCES[:3]) + "\n")
    given = ["input=in.txt", *words, *EXACT]
    for name, small in (("plain", "bild=large_only"), ("lookup", "small=prompt_lookup")):
        policy = [word for word in given if not (name == "plain" and word.startswith("bild."))]
        generate.main(composed("generate", *policy, small, f"output={name}.txt"))
    assert Path("plain.txt").read_text() == Path("lookup.txt").read_text()


def test_a_policy_that_a_source_cannot_serve_is_refused_before_any_text_is_written(without_small, monkeypatch):
    monkeypatch.setattr(decode.BatchDecoder, "run", lambda *_, **__: pytest.fail("a text was written"))
    words = [word for word in without_small if not word.startswith("bild.")]
    with pytest.raises(UserError, match=r"does not write whole texts, but SmallOnly.* asks for them"):
        evaluate.main(composed("evaluate", *words, "small=prompt_lookup", "bild=small_only"))
    with pytest.raises(UserError, match=r"only guesses, and BigLittle.* lets drafted tokens stand .* verify_eos=True"):
        evaluate.main(composed("evaluate", *words, "small=prompt_lookup"))
    with pytest.raises(UserError, match="small: max_ngram=0 must be"):
        evaluate.main(composed("evaluate", *words, "small=prompt_lookup", "small.max_ngram=0"))


@pytest.fixture
def sources(pair) -> list[Pair]:
    """The pair's large model with two other sources."""
    made = [bild.PromptLookup(), bild.PromptLookup(max_ngram=2)]
    described = [{**pair.described, "small": describe_source(one, "lookup", "")} for one in made]
    return [replace(pair, small=one, described=about) for one, about in zip(made, described, strict=True)]


def test_a_source_and_the_model_that_it_drafts_for_are_in_the_key(sources):
    def keys(policy):
        return {pair_key(one, policy, INPUTS, DECODING, BATCH) for one in sources}

    assert len(keys(bild.BigLittle())) == 2
    assert len(keys(bild.LargeOnly())) == 1
    # A source that writes alone does so with the large model's weights.
    large = {"large": replace(sources[0].described["large"], weights="others")}
    other = replace(sources[0], described={**sources[0].described, **large})
    for policy in (bild.BigLittle(), bild.SmallOnly()):
        key = pair_key(sources[0], policy, INPUTS, DECODING, BATCH)
        assert pair_key(other, policy, INPUTS, DECODING, BATCH) != key


def test_sources_do_not_share_a_table_with_models_or_each_other(pair, sources, dataset, tmp_path):
    policy = bild.BigLittle(rollback=0.0, verify_eos=True)
    found = []
    for number, one in enumerate([pair, *sources]):
        done = run(one, make_task(), dataset, policy, tmp_path)
        content = {"task": describe_task(make_task(), dataset, "test", None), **done.content}
        found.append(results.Result(tmp_path / f"{number}.json", content))
    assert [len(group) for group in table.groups(found)] == [1, 1, 1]
    assert [[line.entry["method"] for line in table.lines([one])] for one in found] == [
        ["large", "small", "policy"],
        ["large", "policy"],
        ["large", "policy"],
    ]


def test_what_has_no_weights_is_not_aligned():
    with pytest.raises(UserError, match="small=bigram: has no weights that could be aligned; choose a model"):
        align.main(composed("align", "small=bigram"))
