"""Every mode from the command line: what it writes is what results/README.md describes, and bad input is one line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import latency, steps
from benchmarks.machine import read_bandwidth
from benchmarks.shapes import parse_shape, random_model
from tests.benchmarks.conftest import COMMANDS, ENGINES, PAIR, QUICK, ROOT, SHAPE


def keys(value) -> set[str]:
    """All names in a result, but those of the command's own options and of things named by users."""
    if isinstance(value, dict):
        own = {name for name in value if not re.search(r"[ ,+]", name)}
        free = ("config", "versions", "shape", "inflated_from", "shapes")
        return own | {key for name, one in value.items() if name not in free for key in keys(one)}
    return {key for one in value for key in keys(one)} if isinstance(value, list) else set()


def undescribed(content) -> set[str]:
    """Keys that results/README.md does not name."""
    text = (ROOT / "results/README.md").read_text().split("## The JSON file of a benchmark")[1]
    found = keys(content) | {key for shape in content.get("shapes", {}).values() for key in keys(shape)}
    return {key for key in found if f"`{key}`" not in text}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results/published/benchmarks").glob("*.json")), ids=lambda path: path.name
)
def test_every_key_of_a_published_result_is_described(path) -> None:
    assert undescribed(json.loads(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize("mode", COMMANDS)
def test_every_key_is_described(mode: str, result) -> None:
    content = result(mode).content
    assert undescribed(content) == set()
    assert (content["schema"], content["kind"], content["mode"]) == (1, "benchmark", mode)
    assert content["provenance"]["machine"]["threads"] == 1


def test_pair(result) -> None:
    content = result("pair").content
    methods = {entry["method"]: entry for entry in content["methods"]}
    assert len(methods) == 5 + 2 * 4
    assert content["skipped"] == []
    baseline = methods["transformers generate"]
    assert baseline["end_to_end"]["speedup"]["value"] == 1
    for name in ("transformers assisted", "transformers prompt lookup", "CTranslate2 float32", "large alone, static"):
        assert methods[name]["exact"] == 1, name
        assert methods[name]["margins"] == []
    assert methods["BigLittle 0.6 exact, static"]["same_as_large_alone"] == 1
    exact = methods["BigLittle 0.6 exact, static+int8"]
    assert all(margin < 0.02 for margin in exact["margins"]), "8 bits may tip a near tie (big or large), nothing else"
    assert exact["counts"]["tokens"] == exact["tokens"]
    assert exact["mean_accepted_length"] == pytest.approx(exact["tokens"] / exact["counts"]["large_steps"], rel=1e-4)
    assert methods["BigLittle 0.6 2, static"]["margins"] is None
    assert len(exact["milliseconds"]) == 1
    assert len(exact["milliseconds"][0]) == 2
    for entry in content["methods"]:
        whole, decoding = entry["end_to_end"], entry["decode_only"]
        assert 0 < decoding["median_ms"] < whole["median_ms"] or entry["method"].startswith("CTranslate2")
        assert entry["bleu"] > 0
    assert content["data"]["rows"] == 2
    assert content["large"]["inflated_from"] is None


def test_inflate(result) -> None:
    content = result("inflate").content
    assert content["large"]["shape"]["d_model"] == 272
    assert content["large"]["inflated_from"]["d_model"] == 256
    as_it_is = {entry["method"]: entry for entry in result("pair").content["methods"]}
    assert len(content["methods"]) == 4
    for inflated in content["methods"]:
        trained = as_it_is[inflated["method"]]
        assert inflated["tokens"] == trained["tokens"]
        assert inflated.get("counts") == trained.get("counts")


def test_batch(result) -> None:
    content = result("batch").content
    points = {(point["method"], point["batch_size"]): point for point in content["points"]}
    assert len(points) == len(content["points"]) == 2 * (1 + 2 + 2)
    assert all(point["tokens_per_second"] > 0 for point in points.values())
    assert points["large alone, static", 2]["exact"] == 1
    assert points["large alone, static", 1]["tokens"] == points["large alone, static", 2]["tokens"]
    assert not any("small alone" in name for name, _ in points)


def test_steps(result) -> None:
    content = result("steps").content
    assert list(content["shapes"]) == ["t5-32-8-48-2-2-2-60", "mt5-32-8-48-2-2-2-60"]
    for shape in content["shapes"].values():
        assert {(step["engine"], step["width"]) for step in shape["steps"]} == {
            (engine, width) for engine in ENGINES for width in (1, 8)
        }
        assert [engine["engine"] for engine in shape["engines"]] == ENGINES
        assert [method["method"] for method in shape["methods"]][-1] == "CTranslate2 int8"
        for entry in (*shape["engines"], *shape["methods"]):
            assert len(entry["runs"]) == 1
            bandwidth = content["provenance"]["machine"]["bandwidth_gb_per_s"]
            assert entry["limit_ms"] == pytest.approx(entry["bytes"] / bandwidth / 1e6, rel=1e-4)
        for engine in shape["engines"]:
            assert engine["ms"] > 0
            assert engine["verify_over_step"] > 0
            assert engine["fixed_ms"] > 0
            short = engine["shortlist"]
            assert short["whole_head_over_shortlist"] == pytest.approx(engine["ms"] / short["ms"], rel=1e-4)
            assert set(engine["speedup_over"]) == {"transformers generate", "CTranslate2 float32", "CTranslate2 int8"}


def test_without_a_verify_width(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    few = ["--runs", "1", "--repeats", "1", "--peers", "--engines", "static"]
    latency.main(["steps", "--shapes", f"t5:{SHAPE}", "--widths", "2-3", *few, *QUICK, "--out", str(out)])
    (shape,) = json.loads(out.read_text())["shapes"].values()
    assert shape["engines"][0]["verify_over_step"] is None
    assert shape["engines"][0]["shortlist"] is None
    assert {step["width"] for step in shape["steps"]} == {1, 2, 3}


def test_a_shortlist_s_step_computes_its_ids_alone() -> None:
    model = random_model(parse_shape(f"mt5:{SHAPE}"), torch.float32, torch.device("cpu"))
    listed = steps._random_ids(model, 12)
    assert len(set(listed.tolist())) == 12
    widths = []
    for ids in (None, listed):
        stepper = steps.Stepper(model, "static", torch.tensor([[5, 6, 7]]), 4, 1, ids)
        with torch.inference_mode():  # in which its caches were made
            widths.append(stepper._runner.extend(torch.zeros(1, 1, dtype=torch.long), [1]).shape[-1])
    assert widths == [60, 12]


def test_numbers_are_short_and_lists_lie_flat(tmp_path: Path) -> None:
    latency.write({"runs": [1 / 3, 2e-9, 3], "names": ["a, b"], "whole": 123456789}, tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text()
    assert '"runs": [0.333333, 2e-09, 3]' in text
    assert "123456789" in text
    assert list(tmp_path.iterdir()) == [tmp_path / "x.json"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["steps", "--shapes", "t5-huge"], "t5-huge"),
        (["steps", "--engines", "warp"], "warp"),
        (["steps", "--device", "tpu"], "neither cpu nor cuda"),
        (["steps", "--runs", "0"], "whole number"),
        (["steps", "--shapes", f"t5:{SHAPE}", "--shortlist", "61"], "60 ids; ask for fewer"),
        (["steps", "--widths", "8-"], "whole number"),
        (["steps", "--widths", "8-3"], "counts down"),
        (["pair", "--large", "nowhere", *PAIR[2:]], "nowhere: no config.json"),
        (["pair", *PAIR, "--tokenizer", "nowhere"], "no tokenizer.json"),
        (["pair", *PAIR, "--source", "text"], "no text in the field 'text'"),
        (["pair", *PAIR, "--big-little", "0.6"], "FALLBACK,ROLLBACK"),
        (["pair", *PAIR, "--big-little=-1,2"], "fallback"),
        (["pair", *PAIR, "--big-little", "0.6,2,5,6"], "4 values"),
        (["pair", *PAIR, "--source", "none", "--big-little", "0.6,2", "0.6,2"], "twice"),
        (["inflate", *PAIR, "--large-shape", f"t5:{SHAPE}"], "less than the model's"),
        (["race"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str, capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        latency.main([*arguments, *(QUICK if len(arguments) > 1 else []), "--out", str(tmp_path / "x.json")])
    assert left.value.code == 2
    (*_, line) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line


@pytest.mark.parametrize("out", ["file/x.json", "folder", "/proc/x.json"])
def test_what_cannot_be_written_is_told_before_the_work(out: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(latency, "read_bandwidth", lambda *_: pytest.fail("the measurement has begun"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemExit) as left:
        latency.main(["steps", *QUICK, "--out", str(tmp_path / out)])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out {tmp_path / out}: ")
    assert line.endswith("; choose another path")


def test_two_at_once_do_not_write_one_file(tmp_path: Path, monkeypatch) -> None:
    names = []
    monkeypatch.setattr(os, "replace", lambda source, target: names.append(source.name))
    for process in (7, 8):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        latency.write({}, tmp_path / "x.json")
    assert names == ["x.json.7.part", "x.json.8.part"]


def test_bandwidth_is_that_of_reading() -> None:
    import torch

    assert 1e8 < read_bandwidth(torch.device("cpu"), 2**24, repeats=2) < 1e13


def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.latency", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "inflate" in done.stdout
