"""The command: what it writes and prints, what it never looks at, what a killed run keeps, what it refuses."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig

import bild
from pipelines import calibrate
from pipelines.calibration import record, study
from pipelines.calibration.bounds import upper_bound
from pipelines.calibration.risks import Disagreement, MethodTexts, PerExample
from pipelines.calibration.rows import _spent, divided
from pipelines.calibration.run import Wanted, _tested
from pipelines.cli import UserError
from pipelines.data.task import fingerprint
from pipelines.decoding import decode
from pipelines.decoding.config import instantiated
from pipelines.evaluation import latency, measures
from pipelines.models import manifest
from tests.calibration.conftest import BESIDE, ROWS, calibrated
from tests.commits import LATER
from tests.conf import composed
from tests.evaluation.conftest import SOURCES


def by_label(content: dict) -> dict[str, dict]:
    return {point["label"]: point for point in content["curve"]}


def test_it_promises_the_fastest_point_that_passes(done):
    content = done.content
    assert content["kind"] == "calibration"
    assert content["provenance"]["git"] != LATER, "it is not the code that ran"
    labels = [point["label"] for point in content["curve"]]
    assert labels[0] == "LargeOnly"
    assert len(labels) == len(set(labels)) == 5  # bild is one of the grid's points
    tested = [point for point in content["curve"] if point["test"] is not None]
    passed = [point for point in tested if point["test"]["passed"]]
    assert passed
    assert content["label"] == min(passed, key=lambda point: point["mean_ms"])["label"]
    [chosen] = [point for point in content["curve"] if point["chosen"]]
    assert chosen["label"] == content["label"]
    promise = content["promise"]
    assert (promise["kind"], promise["rows"]) == ("guaranteed", ROWS // 2)
    assert (promise["max_drop"], promise["delta"]) == (0.95, 0.1)
    assert promise["bound"] == pytest.approx(upper_bound(promise["estimate"], ROWS // 2, 0.1))
    assert promise["estimate"] < promise["bound"] <= 0.95
    assert f"with probability 0.9 over the draw of the {ROWS // 2} examples of the tests" in promise["statement"]
    assert not list((done.folder / "results/cache/timing").iterdir())


def losses(words, policy, dataset) -> np.ndarray:
    """Disagreement on all rows, decoded without any of the calibration's code."""
    from pipelines.decoding.pair import load_pair

    config = composed("calibrate", *words)
    task = instantiated(config, "task")
    pair = load_pair(config, task)
    inputs = pair.tokenizer(list(dataset), padding=True, return_tensors="pt")
    texts = []
    for one in (bild.LargeOnly(), policy):
        out = bild.generate(
            pair.large,
            pair.small,
            inputs.input_ids,
            attention_mask=inputs.attention_mask,
            policy=one,
            max_new_tokens=task.target_length,
        )
        texts.append([[token.token_id for token in row if token.reason != "discarded"] for row in out.trace])
    return np.array(
        [
            1 - sum(a == b for a, b in zip(one, other, strict=False)) / max(len(one), len(other))
            for one, other in zip(*texts, strict=True)
        ]
    )


def test_what_proposes_and_what_tests_are_rows_of_their_own(done):
    content = done.content
    parts = [content["split"][name] for name in ("selection", "test")]
    assert sorted(parts[0]["rows"] + parts[1]["rows"]) == list(range(ROWS))
    expected = losses(done.words, bild.BigLittle(fallback=0.02, rollback=4.0), SOURCES[:ROWS])
    assert 0 < expected.mean() < 1
    point = by_label(content)["BigLittle fallback=0.02 rollback=4"]
    assert point["risk"] == pytest.approx(expected[parts[0]["rows"]].mean())
    assert point["test"]["risk"] == pytest.approx(expected[parts[1]["rows"]].mean())
    assert point["risk"] != pytest.approx(point["test"]["risk"])


def test_rows_are_divided_by_chance_and_again_the_same():
    first, second = divided(1000, 0.3, 0)
    assert (len(first), len(second)) == (300, 700)
    assert set(first).isdisjoint(second)
    assert np.mean(first) == pytest.approx(500, abs=60)
    assert divided(1000, 0.3, 0) == (first, second)
    assert divided(1000, 0.3, 1) != (first, second)
    assert {str(divided(4, 0.5, seed, spent=2)) for seed in range(9)} == {"([0, 1], [2, 3])"}


def test_a_test_asks_for_the_bound_not_for_the_mean():
    wanted = Wanted(risk=Disagreement(), max_drop=0.2, delta=0.1)
    for rows, passed in ((16, False), (256, True)):
        losses = np.arange(rows) < rows / 8
        bound = upper_bound(1 / 8, rows, 0.1)
        assert (bound <= 0.2) == passed
        assert _tested(losses, wanted) == {"risk": 1 / 8, "bound": pytest.approx(bound), "passed": passed}


def test_lossless_points_lose_nothing(done):
    points = by_label(done.content)
    lossless = [point for point in points.values() if point["lossless"]]
    assert [point["label"] for point in lossless] == ["LargeOnly", "BigLittle fallback=0.1 rollback=0 verify_eos=True"]
    assert [point["risk"] for point in lossless] == [0, 0]
    assert points["SmallOnly"]["risk"] > 0.5


def test_a_bound_that_nothing_meets_recommends_a_lossless_policy(words, capsys):
    content = calibrated(*words, "max_drop=0.15")
    lines = capsys.readouterr().out.splitlines()
    assert f"policy {content['label']}" in lines
    assert content["promise"]["statement"] in lines
    assert lines[-1] == str(BESIDE)
    assert json.loads(Path(lines[-2]).read_text()) == content
    assert content["promise"]["kind"] == "lossless"
    assert content["label"] == "BigLittle fallback=0.1 rollback=0 verify_eos=True"
    assert content["bild"] == {"_target_": "bild.BigLittle", "fallback": 0.1, "rollback": 0.0, "verify_eos": True}
    assert "no faster point was shown to keep token disagreement with the large model within 0.15" in lines[-3]


def test_a_point_of_the_grid_is_lossless_where_its_policy_is(words):
    """Whatever list it stands in; the same policy is one point."""
    rest = [word for word in words if not word.startswith("bild.")]
    grid = "grid=[{_target_: bild.Speculative, draft_length: [2, 3]}]"
    content = calibrated(*rest, "lossless=[]", grid, "bild=large_only")
    assert [point["lossless"] for point in content["curve"]] == [True] * 3
    assert content["promise"]["kind"] == "lossless"


def test_one_that_writes_another_text_here_is_tested_as_the_others_are(words, monkeypatch):
    """As a near tie, or eight bits, may make it. It is the fastest, so that a label alone would recommend it."""
    monkeypatch.setattr(bild.SmallOnly, "lossless", True)
    content = calibrated(*words, "max_drop=0.15")
    point = by_label(content)["SmallOnly"]
    assert not point["lossless"]
    assert point["risk"] > 0.5
    assert content["label"] == "BigLittle fallback=0.1 rollback=0 verify_eos=True"


def test_what_the_pair_cannot_do_is_left_out_by_name(words, capsys):
    drafts = [word for word in words if not word.startswith("small.")]
    content = calibrated(
        *drafts, "small=prompt_lookup", beside=Path("checkpoints/made/large+prompt_lookup/policy.json")
    )
    out = capsys.readouterr().out
    assert "left out: SmallOnly: PromptLookup(max_ngram=3, min_ngram=1) " in out
    assert out.count("left out: BigLittle") == 1
    assert "left out: BigLittle fallback=0.02 rollback=4 and 1 other: PromptLookup" in out
    assert [told.partition(":")[0] for told in content["left_out"]] == [
        "SmallOnly",
        "BigLittle fallback=0.02 rollback=4",
        "BigLittle fallback=0.02 rollback=inf",
    ]
    labels = [point["label"] for point in content["curve"]]
    assert labels == ["LargeOnly", "BigLittle fallback=0.1 rollback=0 verify_eos=True"]


def test_a_corpus_score_is_never_called_guaranteed(words):
    content = calibrated(*words, "risk=corpus", "max_drop=90")
    assert content["promise"]["kind"] == "approximate"
    assert content["promise"]["statement"].startswith("approximate: ")
    assert "guaranteed" not in content["promise"]["statement"]
    assert content["name"].startswith("calibrate-large-small-CorpusDrop")


def test_a_killed_run_goes_on(words, monkeypatch, capsys):
    """Killed in the texts, then just before its end; nothing that was finished is decoded or timed again."""
    monkeypatch.setattr(decode, "CHUNK", 8)
    real, calls = bild.generate, []

    def counting(*arguments, **keywords):
        calls.append((keywords["policy"], len(arguments[2])))
        return real(*arguments, **keywords)

    def dying(*arguments, **keywords):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return counting(*arguments, **keywords)

    monkeypatch.setattr(bild, "generate", dying)
    with pytest.raises(KeyboardInterrupt):
        calibrated(*words)
    assert not BESIDE.exists()
    assert "the same command goes on" in capsys.readouterr().out
    assert calls[:2] == [(bild.LargeOnly(), 8)] * 2
    calls.clear()
    monkeypatch.setattr(bild, "generate", counting)
    with monkeypatch.context() as patched:
        patched.setattr(record, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            calibrated(*words)
    # Of the large model only what tests: of the four points behind it one batch was kept, too.
    assert [size for policy, size in calls if policy == bild.LargeOnly() and size > 1] == [8, 8]
    assert len([size for _, size in calls if size == 8]) >= 2 + 7
    calls.clear()
    assert calibrated(*words)["run"]["timing_processes"] == 1
    assert calls == []


def test_the_speed_is_that_of_rows_which_chose_nothing(done, words, monkeypatch, capsys):
    """Every point is twice as fast where it proposes."""
    assert done.content["speed"]["examples"] == 2
    _, test = divided(ROWS, 0.5, 0)
    tested = {SOURCES[row] for row in test}
    real = latency._time

    def partial(decoder, policy, name, inputs, row):
        timing = real(decoder, policy, name, inputs, row)
        is_test = decoder._tokenizer.decode(inputs[row], skip_special_tokens=True) in tested
        return timing if name == "0" or is_test else replace(timing, milliseconds=timing.milliseconds / 2)

    monkeypatch.setattr(latency, "_time", partial)
    content = calibrated(*words)
    [chosen] = [point for point in content["curve"] if point["chosen"]]
    assert chosen["speedup"]["value"] > 2
    assert content["speed"]["speedup"]["value"] == pytest.approx(100 / 99)
    assert "speedup 1.01x (1.01–1.01) over the large model alone, on 2 examples of the tests" in capsys.readouterr().out


def test_promises_on_the_same_rows_are_counted(words):
    """The same again is no other one."""
    first = calibrated(*words)["promise"]
    assert first["calibration"] == 1
    assert "calibration" not in first["statement"]
    for _ in range(2):
        second = calibrated(*words, "max_drop=0.9")["promise"]
        assert second["calibration"] == 2
        assert second["statement"].endswith("; calibration 2 of this pair on this split: 0.9 is for each alone")
    assert calibrated(*words, "max_drop=0.8", "split=test")["promise"]["calibration"] == 1
    assert calibrated(*words, "max_drop=0.8")["promise"]["calibration"] == 3
    other = calibrated(*words, "max_drop=0.8", "engine=hf")
    assert (other["promise"]["calibration"], len(other["history"])) == (1, 5)
    assert calibrated(*words, "max_drop=0.7")["promise"]["calibration"] == 4, "of this engine nothing is forgotten"


def test_promises_of_an_older_file_are_counted(words):
    """There each was of the weights and settings of the whole file."""
    content = calibrated(*words)
    content["history"] = [{name: one[name] for name in one if name != "fits"} for one in content["history"]]
    BESIDE.write_text(json.dumps(content))
    assert calibrated(*words, "max_drop=0.9")["promise"]["calibration"] == 2
    assert len(calibrated(*words)["history"]) == 2


def test_what_was_promised_is_read_and_written_while_nobody_else_writes(words, monkeypatch):
    tried = []

    def watch(name: str, real: Callable) -> Callable:
        def watching(*given: object) -> object:
            with pytest.raises(Timeout):
                FileLock(BESIDE.parent / ".lock").acquire(blocking=False)
            tried.append(name)
            return real(*given)

        return watching

    for name in ("_earlier", "write"):
        monkeypatch.setattr(record, name, watch(name, getattr(record, name)))
    calibrated(*words)
    assert tried == ["_earlier", "write"]


def test_another_setting_is_another_file(words, monkeypatch):
    for more in ([], ["limit=24"], ["split=test"], ["engine=hf"]):
        overrides = SimpleNamespace(overrides=SimpleNamespace(task=[*words, "max_drop=0.95", *more]))
        with monkeypatch.context() as patched:
            patched.setattr(HydraConfig, "initialized", lambda: True)
            patched.setattr(HydraConfig, "get", lambda overrides=overrides: overrides)
            content = calibrated(*words, *more)
        assert json.loads(Path(f"results/made/{content['name']}.json").read_text()) == content
        assert content["name"].startswith("calibrate-large-small-Disagreement-max_drop0.95-delta0.1-task.")
    assert len(list(Path("results/made").glob("*.json"))) == 4


@pytest.fixture
def trained(words, pair_folder, tmp_path) -> Callable[..., list[str]]:
    """Overrides for a pair whose large model is a checkpoint chosen by so many validation rows."""

    def run(rows: int | None, task_name: str = "made", **others: object) -> list[str]:
        pair = shutil.copytree(pair_folder, tmp_path / "trained", dirs_exist_ok=True)
        task = instantiated(composed("calibrate", *words), "task")
        seen = fingerprint(task.load("validation", ROWS - 4))
        identity = {"task": task_name, "train.evaluate_rows": rows}
        identity |= {"validation rows": ROWS - 4, "validation data": seen}
        manifest.write(pair / "large", **{"best_step": 7, "identity": identity} | others)
        return [word for word in words if not word.startswith("large.path")] + [f"large.path={pair / 'large'}"]

    return run


@pytest.mark.parametrize("task_name", ["made", "another"])
def test_rows_that_chose_the_checkpoints_propose(task_name, trained, capsys):
    """Also where the task that they were trained on has another name here."""
    content = calibrated(*trained(10, task_name))
    assert "rows   the first 10 have served to choose the checkpoints" in capsys.readouterr().out
    assert content["split"]["spent"] == 10
    assert set(range(10)) < set(content["split"]["selection"]["rows"])
    assert content["promise"]["not_fresh"] == 0
    assert "checkpoints" not in content["promise"]["statement"]


def test_where_there_are_too_many_of_them_the_promise_says_so(trained, capsys):
    """Of 32 rows 28 were looked at, and 16 propose."""
    content = calibrated(*trained(None))
    assert content["split"]["spent"] == 28
    assert len([row for row in content["split"]["test"]["rows"] if row < 28]) == content["promise"]["not_fresh"] == 12
    assert content["promise"]["kind"] == "approximate"
    statement = content["promise"]["statement"]
    assert statement.startswith("approximate: over new examples")
    assert statement.endswith("if these were new: 12 of them have helped to choose the checkpoints")
    told = (
        "12 of them must test, so what is promised is approximate: selection_share=0.875 would leave the tests to new"
    )
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(("task_name", "spent"), [("made", 10), ("another", 0)])
def test_rows_that_chose_an_aligned_checkpoint_are_known_by_their_task(task_name, spent, trained, words):
    """In what it validates on the large model's texts are the targets."""
    version = instantiated(composed("calibrate", *words), "task").version
    identity = {"align.method": "sequence", "task": task_name, "task.version": version, "train.evaluate_rows": 10}
    content = calibrated(*trained(10, identity={**identity, "validation rows": ROWS - 4, "validation data": "others"}))
    assert content["split"]["spent"] == spent


def test_a_disturbed_measurement_is_named(words, monkeypatch, capsys):
    found = {"mean_over_median": 3.04, "second_half_over_first": 1.0, "disturbed": True}
    methods = []
    monkeypatch.setattr(measures, "steadiness", lambda large: methods.append({one.method for one in large}) or found)
    assert calibrated(*words)["run"]["steadiness"] == found
    assert methods == [{"0"}]  # the large model alone
    assert "disturbed: a token of the large model alone took 1.00 times as long" in capsys.readouterr().out


def test_where_nothing_can_pass_only_what_needs_no_test_is_calibrated(words):
    """With no point to be tested there is nothing to refuse."""
    lossless = [word for word in words if not word.startswith(("grid=", "bild."))]
    content = calibrated(*lossless, "grid=[]", "bild=large_only", "max_drop=0.01")
    assert content["promise"]["kind"] == "lossless"


def test_no_more_rows_are_spent_than_were_looked_at(trained, words):
    folder = Path(trained(100)[-1].partition("=")[2])
    assert _spent(folder, instantiated(composed("calibrate", *words), "task")) == ROWS - 4


@pytest.mark.parametrize(
    ("others", "more"),
    [
        ({"best_step": None}, []),
        ({"identity": {"task": "made", "train.evaluate_rows": 10, "validation data": "other"}}, []),
        ({}, ["split=test"]),
    ],
)
def test_rows_that_chose_nothing_are_fresh(trained, others, more):
    assert calibrated(*trained(10, **others), *more)["split"]["spent"] == 0


def test_a_quick_look(words):
    content = calibrated(*words, "limit=10")
    assert content["task"]["limit"] == 10
    assert content["promise"]["rows"] == 5
    assert "of the 5 examples" in content["promise"]["statement"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("delta=0", "delta=0: must be a probability above 0 and below 0.5"),
        ("delta=much", "delta=much: must be a number"),
        ("delta=0.5", "delta=0.5: must be"),
        ("max_drop=0", "max_drop=0: must be above 0 and below 1"),
        ("max_drop=5", "max_drop=5: must be above 0 and below 1"),
        ("max_drop=true", "max_drop=True: must be a number"),
        ("selection_share=1", "selection_share=1: both parts need some of 32 rows"),
        ("limit=1", "selection_share=0.5: both parts need some of 1 row;"),
        ("limit=0", "limit=0: must be a whole number"),
        (
            "max_drop=0.1",
            "max_drop=0.1 delta=0.1: 16 rows for the tests, and even a point that loses nothing passes with 22",
        ),
        ("batch_size=0", "batch_size=0: must be a whole number"),
        ("coverage.resplits=0", "coverage.resplits=0: must be a whole number"),
        ("do_sample=true", "do_sample=true: texts of two samples cannot be compared"),
        ("grid=fast", "grid=fast: must be a list of policies"),
        ("grid=[{_target_: bild.BigLittle, fallback: []}]", "grid[0].fallback=[]: lists no value"),
        ("grid=[fast]", "grid[0]: names no policy"),
        ("grid=[{fallback: 0.5}]", "grid[0]: names no policy"),
        ("grid=[{_target_: bild.BigLittle, falback: 0.5}]", "grid[0]: "),
        ("grid=[{_target_: bild.BigLittle, fallback: [0.5, much]}]", "grid[0].fallback=much: must be a number"),
        ("grid=[{_target_: bild.BigLittle, fallback: -1}]", "grid[0]: fallback=-1 must be"),
        ("grid=[{_target_: bild.Nothing}]", "grid[0]: bild.Nothing is no policy"),
        ("grid=[{_target_: bild.RowStats}]", "grid[0]: bild.RowStats is no policy"),
        ("lossless=[{_target_: collections.OrderedDict}]", "lossless[0]: collections.OrderedDict is no policy"),
        (
            "lossless=[{_target_: bild.SmallOnly}]",
            "lossless[0]: SmallOnly() may write other texts than the large model",
        ),
        (
            "lossless=[{_target_: bild.BigLittle, rollback: [0.0, 1.0], verify_eos: true}]",
            "lossless[0]: BigLittle(adaptive=False, fallback=0.6, rollback=1.0",
        ),
        ("split=tset", "there is no split 'tset'"),
        ("seed=-1", "seed=-1"),
        ("coverage.resplits=5 & coverage.splits=[]", "coverage.splits=[]: must be a list, of one at least"),
        ("coverage.resplits=5 & coverage.splits=test", "coverage.splits=test: must be a list"),
        ("coverage.resplits=5 & coverage.splits=[validation,tset]", "there is no split 'tset'"),
        ("coverage.resplits=5 & coverage.checks=[]", "coverage.checks=[]: must be a list"),
        ("coverage.resplits=5 & coverage.checks=[{risk:disagreement,max_drops:[0.1]}]", "coverage.checks[0]="),
        ("coverage.resplits=5 & coverage.checks=[{max_drops:[0.1]}]", "write {risk: {_target_:"),
    ],
)
def test_mistakes_are_one_line_before_any_model_loads(words, override, message, monkeypatch):
    import pipelines.models.loading

    monkeypatch.setattr(pipelines.models.loading, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(UserError) as error:
        calibrated(*words, *override.split(" & "))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class Larger(PerExample):
    """A loss that is another one when the models change places."""

    title = "share of texts with the larger sum of ids"

    def losses(self, large: MethodTexts, policy: MethodTexts) -> np.ndarray:
        pairs = zip(large.tokens, policy.tokens, strict=True)
        return np.array([float(sum(ours) > sum(theirs)) for theirs, ours in pairs])


def test_a_study_of_coverage(words, capsys, monkeypatch):
    """It has an infinite threshold in its curve, which JSON cannot hold as a number."""
    real, studied = study.coverage, []
    monkeypatch.setattr(study, "coverage", lambda *given: studied.append(given) or real(*given))
    risks = ((Disagreement, "[0.5, 0.95]"), (Larger, "[0.9]"))
    each = (f"{{risk: {{_target_: {kind.__module__}.{kind.__name__}}}, max_drops: {drops}}}" for kind, drops in risks)
    checks = f"coverage.checks=[{', '.join(each)}]"
    calibrate.main(composed("calibrate", *words, "coverage.resplits=20", "selection_share=0.25", checks))
    assert not BESIDE.exists()
    file = Path(capsys.readouterr().out.splitlines()[-1])
    assert file == Path("results/made/calibrate-large-small-coverage.json")
    content = json.loads(file.read_text())
    assert content["kind"] == "coverage"
    assert content["pool"]["examples"] == 2 * ROWS
    assert (content["draws"]["selection"], content["draws"]["test"]) == (8, 24)
    assert [check["max_drop"] for check in content["checks"]] == [0.5, 0.95, 0.9]
    assert [check["delta"] for check in content["checks"]] == [0.1] * 3
    for pool, draws, risk, *_ in studied:
        assert (draws.selection, draws.test) == (8, 24)
        told = [point["risks"][type(risk).__name__] for point in content["curve"]]
        assert [losses.mean() for losses in pool.losses] == pytest.approx(told)
        assert max(told) > 0
    assert content["checks"][1]["bound"]["lossy"] == 1, "24 rows are enough for a bound of 0.95"
    assert content["curve"][-1]["bild"]["rollback"] == "inf"
    assert all(math.isfinite(point["risks"]["Disagreement"]) for point in content["curve"])
