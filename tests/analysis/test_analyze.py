"""The command as a user runs it, on a tiny random pair: what it prints, writes, keeps and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bild
from pipelines import analyze
from pipelines.analysis import costs, report, result, tables
from pipelines.analysis import run as analysis_run
from pipelines.cli import UserError
from pipelines.evaluation import latency, results
from pipelines.evaluation.plots import INK
from tests.commits import LATER, committed_during
from tests.conf import ROOT, composed
from tests.evaluation.test_report import checked


def analyzed(*overrides: str) -> None:
    analyze.main(composed("analyze", *overrides))


def written(tmp_path: Path) -> dict:
    [path] = (tmp_path / "results" / "made").glob("*.json")
    return result.read(path)


def test_the_whole_command(quick, tmp_path, monkeypatch, capsys):
    committed_during(monkeypatch, latency, "measure")
    analyzed(*quick)
    out = capsys.readouterr().out
    for words in ("both models on every position", "step costs", "oracle mixing", "calibration error", "without fall"):
        assert words in out
    path = Path(out.splitlines()[-1])
    assert path.suffix == ".html"
    content = result.read(path.with_suffix(".json"))
    assert content["provenance"]["git"] != LATER, "it is not the code that ran"
    assert not list((tmp_path / "results" / "cache" / "timing").iterdir())
    check_numbers(content)
    check_ends_of_mixing(content)
    check_page(content, path)


def check_numbers(content: dict) -> None:
    assert content["agreement"]["examples"] == 6
    assert content["agreement"]["alpha"] == content["agreement"]["same_choice"]  # greedy
    assert sum(part["positions"] for part in content["agreement"]["by_confidence"]) == content["agreement"]["positions"]
    assert [entry["width"] for entry in content["steps"]["large"]] == [1, 2, 3, 4]
    assert content["policy"]["fallback"] == 0.1
    assert [one["policy"] for one in tables.series(content, "no_rollback")] == [
        {**results.policy_fields(bild.BigLittle(fallback=value)), "rollback": "inf"} for value in (0.1, 0.5)
    ]
    [fixed] = tables.series(content, "no_fallback")
    assert fixed["policy"] == results.policy_fields(bild.BigLittle(fallback=0, draft_length=2))

    # Greedy acceptance is certain, so what is counted from positions is what is decoded.
    assert [point["draft_length"] for point in content["draft_lengths"]["points"]] == [1, 2, 3]
    for point in content["draft_lengths"]["points"]:
        assert point["rates"]["exact_match_with_large"] == 1
        counted = point["rates"]["mean_accepted_length"]
        assert point["predicted_tokens_per_large_step"]["positions"] == pytest.approx(counted)


def check_page(content: dict, path: Path) -> None:
    page = checked(path)
    text = path.read_text()
    assert page.fetched == []
    assert text.count("drafts tokens for as long as it is sure of them.") == 1
    assert page.count["svg"] == len(report.PLOTS)
    assert len(set(page.ids)) == len(page.ids)
    assert INK not in text
    for table in tables.all_tables(content).values():
        for entry in table.entries:
            for column in table.columns:
                assert f"<td>{column.read(entry)}</td>".replace("'", "&#39;") in text


def check_ends_of_mixing(content: dict) -> None:
    """They are each model alone."""
    first, middle, last = tables.series(content, "mixing")
    small, large = (content["baselines"][name] for name in ("small", "large"))
    assert first["rates"]["large_share"] == 0
    assert first["quality"]["score"] == small["quality"]["score"]
    assert first["rates"]["exact_match_with_large"] == small["rates"]["exact_match_with_large"]
    assert last["rates"]["large_share"] == 1
    assert last["quality"]["score"] == large["quality"]["score"]
    assert last["rates"]["exact_match_with_large"] == 1
    assert 0 < middle["rates"]["large_share"] < 1
    assert tables.enough_share(content) <= 1


def oracle(score: float, low: float, share: float) -> dict:
    quality = {"score": score, "difference_to_large": {"value": score - 30, "low": low, "high": 1.0}}
    return {"series": "mixing", "setting": 1 - share, "quality": quality, "rates": {"large_share": share}}


def test_a_score_that_happens_to_be_high_is_not_enough():
    """The smallest of many shares at which a noisy score reaches the large model's is too small."""
    lucky, unsure, sure = oracle(30.4, -1.2, 0.1), oracle(30.1, -0.3, 0.2), oracle(29.9, -0.29, 0.4)
    content = {"task": {"metric": "bleu"}, "systems": [lucky, unsure, sure, oracle(30.0, 0.0, 0.9)]}
    assert tables.enough_share(content) == 0.4
    assert report.mixing_words(content) == (
        "With 40.0 % of the tokens from the large model the oracle is known to lose less than 0.3 BLEU to the large "
        "model (95 % interval)."
    )
    unknown = {**content, "systems": [lucky, unsure]}
    assert report.mixing_words(unknown).startswith("At none of these thresholds is the oracle known to lose less than")


def test_sampling(quick, tmp_path):
    analyzed(*quick, "do_sample=true", "temperature=0.8", "top_k=20")
    content = written(tmp_path)
    found = content["agreement"]
    assert found["alpha"]["value"] != found["plain_alpha"]["value"]
    assert 0 < found["alpha"]["value"] < 1
    assert all(point["latency"]["unlike_batched"] == 0 for point in content["draft_lengths"]["points"])


class Killed(BaseException):
    """A run that ends in the middle."""


def dying(real, calls):
    """Lets so many calls through."""

    def function(*arguments, **keywords):
        calls[0] -= 1
        if calls[0] < 0:
            raise Killed
        return real(*arguments, **keywords)

    return function


def test_a_killed_run_goes_on(quick, tmp_path, monkeypatch):
    """Whatever it was doing, nothing that was finished before is done again."""
    monkeypatch.setattr("pipelines.decoding.decode.CHUNK", 1)  # batches of five and one
    for place, name, calls in (
        (bild, "generate", 2),
        (analysis_run, "score", 1),
        (bild, "generate", 6),
        (costs, "_take_turns", 1),
        (latency, "_time", 12),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, dying(getattr(place, name), [calls]))
            with pytest.raises(Killed):
                analyzed(*quick)
    assert not (tmp_path / "results" / "made").exists()
    batches, timed = [], []
    generate, time = bild.generate, latency._time
    monkeypatch.setattr(bild, "generate", lambda *a, **k: batches.append(len(a[2])) or generate(*a, **k))
    monkeypatch.setattr(latency, "_time", lambda *a: timed.append(a[4]) or time(*a))
    for place, name in ((analysis_run, "score"), (costs, "_take_turns")):
        monkeypatch.setattr(place, name, lambda *_: pytest.fail("done again"))
    analyzed(*quick)
    assert set(batches) == {1}
    assert len(set(timed)) == 1
    assert written(tmp_path)["run"]["timed_examples"] == 2


def test_a_shortlist_is_refused(quick):
    with pytest.raises(UserError, match=r"small\.shortlist=true: an analysis compares whole distributions"):
        analyzed(*quick, "small.shortlist=true")


def test_positions_are_kept_batch_by_batch(quick, monkeypatch):
    monkeypatch.setattr("pipelines.decoding.decode.CHUNK", 1)
    real, sizes = analysis_run.score, []
    with monkeypatch.context() as patched:
        patched.setattr(analysis_run, "score", dying(real, [1]))
        with pytest.raises(Killed):
            analyzed(*quick)

    def recording(decoder, inputs, outputs):
        sizes.append(len(inputs))
        raise Killed

    monkeypatch.setattr(analysis_run, "score", recording)
    with pytest.raises(Killed):
        analyzed(*quick)
    assert sizes == [1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("analysis.draft_length=0", "analysis.draft_length=0: must be a whole number of at least 1"),
        ("analysis.bins=many", "analysis.bins=many: must be a whole number"),
        ("analysis.fallbacks=[]", "analysis.fallbacks=[]: must be a list of numbers"),
        ("analysis.fallbacks=0.5", "analysis.fallbacks=0.5: must be a list of numbers"),
        ("analysis.fallbacks=[0.5,0.5]", "holds a value twice"),
        ("analysis.fixed_lengths=[3,0]", "analysis.fixed_lengths=0: must be"),
        ("analysis.thresholds=[-1]", "analysis.thresholds=-1: must be a number of at least 0"),
        ("analysis.thresholds=[much]", "analysis.thresholds=much: must be a number"),
        ("analysis.thresholds=[nan]", "analysis.thresholds=nan: must be a number"),
        ("latency_limit=0", "latency_limit=0: must be"),
        ("split=tset", "there is no split 'tset'"),
        ("temperature=hot", "temperature=hot: must be a number"),
        ("engine=steam", "engine='steam' does not exist"),
    ],
)
def test_mistakes_are_one_line_before_any_model_loads(quick, override, message, monkeypatch):
    monkeypatch.setattr("pipelines.models.loading.load", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(UserError) as error:
        analyzed(*quick, override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_ablations_are_of_big_little(quick):
    with pytest.raises(UserError, match="not from LargeOnly; use bild=big_little"):
        analyzed(*(word for word in quick if not word.startswith("bild.")), "bild=large_only")


def test_a_model_and_its_own_first_layers(quick, tmp_path, capsys):
    """They have distributions, so everything can be said of them."""
    analyzed(*(word for word in quick if not word.startswith("small.")), "small=early_exit")
    content = written(tmp_path)
    check_numbers(content)
    check_ends_of_mixing(content)
    assert content["left_out"] == []
    assert content["models"]["small"]["name"] == "early_exit"
    check_page(content, Path(capsys.readouterr().out.splitlines()[-1]))


def test_what_can_be_said_of_guesses(quick, tmp_path, capsys):
    """Acceptance, costs and predictions; nothing of confidence, of a small model alone, or of unverified drafts."""
    analyzed(*(word for word in quick if not word.startswith("small.")), "small=prompt_lookup")
    content = written(tmp_path)
    found = content["agreement"]
    assert {"confidence", "right", "calibration_error", "by_confidence"}.isdisjoint(found)
    assert 0 < found["guessed"] <= 1
    assert found["alpha"]["value"] == pytest.approx(found["guessed"] * found["accepted_if_guessed"])
    assert list(content["baselines"]) == list(content["alone_ms_per_token"]) == ["large"]
    assert content["systems"] == []
    for point in content["draft_lengths"]["points"]:
        assert point["rates"]["exact_match_with_large"] == 1
        counted = point["rates"]["mean_accepted_length"]
        assert point["predicted_tokens_per_large_step"]["positions"] == pytest.approx(counted)
        assert list(point["predicted_speedup"]) == ["formula", "positions", "widths"]
    assert [reason.partition(": ")[0] for reason in content["left_out"]] == [
        *("fallback and rollback", "without rollback", "without fallback", "oracle")
    ]
    out = capsys.readouterr().out
    assert "left out: oracle: PromptLookup" in out
    assert "can confidence be believed" not in out
    page, text = checked(Path(out.splitlines()[-1])), Path(out.splitlines()[-1]).read_text()
    assert page.count["svg"] == len(report.PLOTS) - len(report.OPTIONAL)
    assert "What drafts only guesses" in text
    assert "Left out: without fallback" in text
    assert ">guessed<" in text


def test_guesses_that_are_all_verified_can_be_ablated(quick, tmp_path, capsys):
    """There is no small model alone to set them beside."""
    others = [word for word in quick if not word.startswith("small.")]
    analyzed(*others, "small=prompt_lookup", "bild.verify_eos=true")
    content = written(tmp_path)
    assert tables.ablated(content) == ["both", "no_fallback"]
    assert list(content["baselines"]) == ["large"]
    page = checked(Path(capsys.readouterr().out.splitlines()[-1]))
    assert page.count["svg"] == len(report.PLOTS) - len({"reliability", "mixing"})


def test_a_result_is_whole_and_of_its_kind(tmp_path):
    content = {key: {} for key in result.SECTIONS} | {"name": "analyze-a-b"}
    path = result.write(content, tmp_path)
    assert result.read(path) == {"schema": 1, "kind": "analysis", **content}
    with pytest.raises(ValueError, match="lacks steps"):
        result.write({name: value for name, value in content.items() if name != "steps"}, tmp_path)
    path.write_text(json.dumps({"schema": 1, "kind": "analysis", "name": "x"}))
    with pytest.raises(UserError, match="has no task"):
        result.read(path)
    path.write_text(json.dumps({"schema": 1, "kind": "evaluation"}))
    with pytest.raises(results.OtherKindError, match="is not an analysis"):
        result.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        result.read(tmp_path / "nowhere.json")


def test_names():
    models = {"large": "big", "small": "little-aligned"}
    assert result.file_name(models, {}) == "analyze-big-little-aligned"
    assert result.file_name(models, {"split": "validation", "bild.rollback": 1}) == (
        "analyze-big-little-aligned-splitvalidation-bild.rollback1"
    )


def test_every_section_is_documented():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    for name in result.SECTIONS:
        assert f"`{name}" in text
