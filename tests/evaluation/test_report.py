"""The report says what the files say, escapes what it shows, and needs no network."""

from __future__ import annotations

import copy
import html
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

import bild
from bild.policies.base import Policy
from pipelines import report as command
from pipelines.cli import UserError
from pipelines.evaluation import plots, report, results, table
from pipelines.readme import markdown
from tests.conf import ROOT


def entry(piece: str, reason: str, confidence: float | None = 0.5, round_: int = 0) -> dict:
    return {"piece": piece, "reason": reason, "confidence": confidence, "round": round_}


def test_tokens_are_read_as_text():
    trace = [
        entry("Die", "draft"),
        entry(" ", "draft"),
        entry("<0xC3>", "draft", 0.9),
        entry("<0xBC>", "draft"),
        entry(" Katze", "discarded"),
        entry(" Hund", "rollback", 0.875, 4),
        entry("</s>", "fallback", None),
    ]
    tokens = report.tokens(trace)
    assert [(token.space, token.text, token.reason) for token in tokens] == [
        ("", "Die", "draft"),
        (" ", "", "draft"),
        ("", "ü", "draft"),
        (" ", "Katze", "discarded"),
        (" ", "Hund", "rollback"),
        (" ", "∎", "fallback"),
    ]
    assert tokens[2].tip == "drafted, accepted · confidence 90 % · round 1"
    assert tokens[4].tip == "large model, in place of a rejected draft (rollback) · confidence 88 % · round 5"
    assert "confidence unknown" in tokens[5].tip


def test_bytes_of_two_writers_are_not_joined():
    tokens = report.tokens([entry("<0xC3>", "draft"), entry("<0xBC>", "fallback")])
    assert [token.reason for token in tokens] == ["draft", "fallback"]


class Checker(HTMLParser):
    """Counts elements, checks that they are closed, and collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.classes: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)
            if name == "class":
                self.classes += value.split()

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def test_a_report_is_one_whole_file(sweep, tmp_path):
    path = report.write_report(sweep[:1], tmp_path / "one.html")
    page = checked(path)
    assert page.fetched == []
    assert "url(http" not in path.read_text()
    assert page.count.get("script", 0) == page.count.get("link", 0) == 0
    assert page.count["svg"] == 2
    assert page.count["article"] == 4
    assert len(set(page.ids)) == len(page.ids)
    assert {"draft", "discarded", "fallback", "rollback"} <= set(page.classes)
    text = path.read_text()
    assert plots.INK not in text
    large, ours = sweep[0].method("large"), sweep[0].method("policy")
    for shown in (large, ours):
        assert f"{shown['quality']['score']:.2f}" in text
        assert f"{100 * shown['rates']['large_share']:.1f} %" in text


def test_a_sweep_has_a_quality_latency_plot_and_every_row(sweep, tmp_path):
    page = checked(report.write_report(sweep, tmp_path / "all.html"))
    text = (tmp_path / "all.html").read_text()
    assert page.count["svg"] == 3
    assert len(set(page.ids)) == len(page.ids)
    for result in sweep:
        assert text.count(f"<td>{result.content['label']}</td>") == 2
    assert text.count("<td>large alone</td>") == 2


def test_a_report_says_what_its_policy_does_and_what_the_colours_mean_that_occur(sweep, tmp_path):
    content = copy.deepcopy(sweep[0].content)
    written_by = sweep[0].method("policy")["written_by"]
    assert written_by["fallback"] > 0
    shown = report.write_report([results.Result(sweep[0].path, content)], tmp_path / "one.html").read_text()
    assert shown.count("drafts tokens for as long as it is sure of them.") == 1
    assert shown.count('<span class="t fallback">token</span>') == 2, "at the plot, and at the examples"
    for line in content["methods"]:
        line["written_by"]["fallback"] = 0
        del line["summary"]  # as in older results
    shown = report.write_report([results.Result(sweep[0].path, content)], tmp_path / "two.html").read_text()
    assert "sure of them" not in shown
    assert '<span class="t fallback">token</span>' not in shown
    assert shown.count('<span class="t draft">token</span>') == 2


def test_no_template_names_a_policy():
    classes = [getattr(bild, name) for name in bild.__all__ if isinstance(getattr(bild, name), type)]
    policies = [one.__name__ for one in classes if issubclass(one, Policy)]
    assert "BigLittle" in policies
    for template in (ROOT / "pipelines").glob("**/*.j2"):
        text = template.read_text(encoding="utf-8")
        assert not [name for name in [*policies, "Big Little"] if name in text], template


def test_what_models_and_users_write_is_escaped(sweep, tmp_path):
    content = copy.deepcopy(sweep[0].content)
    content["task"]["name"] = "<script>alert(1)</script>"
    content["provenance"]["command"] = "x & <b>"
    for line in content["methods"]:
        line["label"] += " <i>"
    records = results.read_rows(sweep[0])
    for record in records:
        record["source"] = "<img src=http://example.org/x>"
        record["trace"][0]["piece"] = '<b onclick="x">'
    hostile = results.write(
        {key: value for key, value in content.items() if key not in ("schema", "kind")},
        pa.Table.from_pylist(records, schema=results.ROWS_SCHEMA),
        tmp_path,
    )
    page = checked(report.write_report([hostile], tmp_path / "x.html"))
    assert page.fetched == []
    assert {"script", "img", "i"} & set(page.count) == set()
    assert "&lt;b onclick=" in (tmp_path / "x.html").read_text()


def test_the_same_files_give_the_same_report(sweep, tmp_path):
    one, two = (report.write_report(sweep, tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert one == two


def test_the_command_needs_the_files_alone(sweep, tmp_path, capsys):
    command.main([str(sweep[0].path.parent), "--out", str(tmp_path / "again.html")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(tmp_path / "again.html")
    assert any("same as large" in line for line in lines)
    checked(tmp_path / "again.html")
    with pytest.raises(SystemExit) as status:
        command.main([str(tmp_path / "nothing.json")])
    assert status.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(("place", "told"), [("", "Is a directory"), ("x.json/y.html", "Not a directory|File exists")])
def test_a_place_that_takes_no_report_is_one_line(sweep, tmp_path, place, told, capsys):
    (tmp_path / "x.json").touch()
    with pytest.raises(SystemExit) as status:
        command.main([str(sweep[0].path), "--out", str(tmp_path / place)])
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"error: {tmp_path}\S*: ({told}); choose another path, or mend its permissions\n", error)
    assert ".tmp" not in error


def test_a_terminal_without_dashes_gets_the_table_too(sweep, tmp_path, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    command.main([str(sweep[0].path), "--out", str(tmp_path / "x.html")])
    sys.stdout.flush()
    assert "large alone" in written.getvalue().decode("ascii")


def variant(result, quality: float, speed: float, **policy) -> results.Result:
    content = copy.deepcopy(result.content)
    entry = next(one for one in content["methods"] if one["method"] == "policy")
    entry["quality"]["score"], entry["latency"]["speedup"]["value"] = quality, speed
    content["policy"].update(policy)
    next(one for one in content["methods"] if one["method"] == "large")["quality"]["score"] = 50.0
    return results.Result(result.path.with_name(f"{quality}-{speed}.json"), content)


def test_the_plot_has_time_across_and_the_fast_end_on_the_left(sweep, monkeypatch):
    monkeypatch.setattr(plots, "svg_text", lambda figure: figure)
    fast, slow = variant(sweep[0], 40.0, 2.0, fallback=0.2), variant(sweep[0], 45.0, 0.5, fallback=0.4)
    fast.method("policy")["latency"]["speedup"] |= {"low": 1.25, "high": 2.5}
    slow.method("policy")["latency"]["speedup"] |= {"low": 0.5, "high": 0.5}
    [axes] = plots.quality_latency([slow, fast]).axes
    [(points, _, (bars,))] = axes.containers
    assert points.get_xydata().tolist() == [[0.5, 40], [2, 45]]
    assert [segment.tolist() for segment in bars.get_segments()] == [[[0.4, 40], [0.8, 40]], [[2, 45], [2, 45]]]
    assert [text.get_text() for text in axes.texts] == ["0.2", "0.4"]
    [large] = [line for line in axes.lines if line.get_label() == "large alone"]
    assert large.get_xydata().tolist() == [[1, 50]]


def test_a_sweep_shows_the_fastest_within_one_point(sweep):
    fine, fast, good = (variant(sweep[0], *numbers) for numbers in ((49.2, 1.5), (48.9, 2.0), (50.5, 1.1)))
    assert report.shown_result([fine, fast, good]) is fine
    poor, poorer = variant(sweep[0], 40.0, 3.0), variant(sweep[0], 30.0, 4.0)
    assert report.shown_result([poorer, poor]) is poor


def test_varying_fields_are_those_that_differ(sweep):
    assert plots.varying_fields(sweep) == ["fallback", "rollback"]
    assert plots.varying_fields(sweep[:1]) == []


def test_results_of_different_rows_do_not_share_a_table(sweep):
    other = variant(sweep[0], 1.0, 1.0)
    other.content["task"]["data"] = "others"
    assert [len(group) for group in table.groups([*sweep, other])] == [4, 1]


@pytest.mark.parametrize(
    ("section", "field", "value", "told"),
    [
        ("decoding", "do_sample", True, "do_sample={}"),
        ("decoding", "temperature", 0.5, "temperature={}"),
        ("decoding", "top_k", 20, "top_k={}"),
        ("decoding", "top_p", 0.9, "top_p={}"),
        ("decoding", "max_new_tokens", 9, "max_new_tokens={}"),
        ("decoding", "engine", "static+int8", "engine={}"),
        ("run", "device", "cuda", "device={}"),
        ("task", "prefix", "[sum up] :key: ", "task.prefix='{}'"),
        ("task", "source_length", 16, "task.source_length={}"),
    ],
)
def test_results_that_were_not_made_alike_do_not_share_a_table(
    sweep, section, field, value, told, tmp_path, monkeypatch, capsys
):
    other = variant(sweep[0], 1.0, 1.0)
    other.content[section][field] = value
    assert [len(group) for group in table.groups([*sweep, other])] == [4, 1]
    before = sweep[0].content[section][field]
    both = [told.format("null" if one is None else one) for one in (before, value)]
    monkeypatch.setenv("COLUMNS", "200")  # so that no title breaks
    table.print_tables([*sweep, other])
    titles = [line.strip() for line in capsys.readouterr().out.splitlines() if "made, test" in line or "came" in line]
    assert titles == [f"{title}; {one}" for one in both for title in ("made, test, 10 examples", "how it came about")]
    shutil.copy(sweep[0].rows_path, tmp_path / "other.parquet")
    there = results.Result(tmp_path / "other.json", other.content)
    page = html.unescape(report.write_report([*sweep, there], tmp_path / "both.html").read_text())
    assert all(f"with small; {one}</h1>" in page for one in both)


def test_models_and_prompts_are_told_apart_by_names_and_hashes(sweep):
    others = [variant(sweep[0], 1.0, 1.0) for _ in range(2)]
    for other, prompt in zip(others, "ab", strict=True):
        other.content["models"]["small"] |= {"weights": 64 * prompt}
        other.content["task"]["prompt"] = {"template": prompt}
    one, two = table.distinctions(table.groups(others))
    assert re.fullmatch(r"small=small aaaaaaaa, task\.prompt=[0-9a-f]{8}", one)
    assert re.fullmatch(r"small=small bbbbbbbb, task\.prompt=[0-9a-f]{8}", two)
    assert one[-8:] != two[-8:]


def test_seeds_share_a_table_and_so_do_older_results_that_tell_less(sweep):
    again, older = variant(sweep[0], 1.0, 1.0), variant(sweep[0], 2.0, 1.0)
    again.content["decoding"]["seed"] = 7
    del older.content["decoding"]["one_line"], older.content["task"]["prompt"]
    groups = table.groups([*sweep, again, older])
    assert [len(group) for group in groups] == [6]
    assert table.distinctions(groups) == [""]


def test_no_table_of_the_readme_mixes_what_was_not_made_alike(sweep, tmp_path):
    other = copy.deepcopy(sweep[0].content)
    other["decoding"]["engine"] = "static+int8"
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"results that differ \(engine=auto; engine=static\+int8\)"):
        markdown([sweep[0].path, tmp_path / "other.json"])


def test_a_result_and_its_copy_have_one_point(sweep, tmp_path):
    for path in (sweep[0].path, sweep[0].rows_path):
        shutil.copy(path, tmp_path / f"copy{path.suffix}")
    both = [sweep[0], results.read(tmp_path / "copy.json")]
    assert report.write_report(both, tmp_path / "both.html").read_text().count("<svg") == 3


def test_baselines_are_shown_once_from_the_run_of_median_time(sweep):
    runs = []
    for milliseconds in (30.0, 10.0, 20.0):
        run = variant(sweep[0], milliseconds, 1.0)
        run.method("large")["latency"]["mean_ms"] = milliseconds
        runs.append(run)
    lines = table.lines(runs)
    assert [line.entry["method"] for line in lines] == ["large", "small", "policy", "policy", "policy"]
    assert lines[0].result is runs[2]


def test_seconds_of_different_runs_do_not_stand_in_one_table(sweep, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")  # so that no title breaks
    table.print_tables(sweep[:1])
    alone = capsys.readouterr().out
    table.print_tables(sweep)
    together = capsys.readouterr().out
    for title in ("tokens/s", "median ms", "p90 ms"):
        assert title in alone
        assert title not in together
    assert together.count("speedup") == alone.count("speedup") == 2


def test_a_disturbed_run_says_so_in_the_terminal_and_in_its_report(sweep, tmp_path, capsys):
    run = variant(sweep[0], 30.0, 1.0)
    shutil.copy(sweep[0].rows_path, tmp_path / "run.parquet")
    run = results.Result(tmp_path / "run.json", run.content)
    for steadiness, told in (
        (None, False),
        ({"mean_over_median": 1.01, "second_half_over_first": 1.02, "disturbed": False}, False),
        ({"mean_over_median": 1.01, "second_half_over_first": 1.27, "disturbed": True}, True),
    ):
        run.content["run"]["steadiness"] = steadiness
        table.print_tables([run])
        page = report.write_report([run], tmp_path / "run.html").read_text(encoding="utf-8")
        for shown in (capsys.readouterr().out, page):
            assert ("disturbed: a token of the large model alone took 1.27 times as long" in shown) == told
    del run.content["run"]["steadiness"]
    assert table.disturbance(run.content) is None


def test_reports_are_named_after_their_results(sweep):
    [path] = {report.report_path(sweep[:1])}
    assert path == sweep[0].path.with_suffix(".html")
    assert report.sweep_path(sweep).name == "test-large-small-BigLittle-sweep.html"
    assert report.report_path(sweep) == sweep[0].path.parent / "made.html"


def test_reports_of_several_folders_lie_above_them(sweep, monkeypatch):
    one, two = sweep[:2]
    monkeypatch.chdir(one.path.parent)
    here = results.Result(Path("one.json"), one.content)
    other = results.Result(two.path.parent.with_name("other") / "two.json", two.content)
    assert report.report_path([here, other]) == one.path.parents[1] / f"{one.path.parents[1].name}.html"


def test_lost_examples_are_told_before_any_table(sweep, tmp_path, capsys):
    (tmp_path / "x.json").write_text(sweep[0].path.read_text())
    with pytest.raises(SystemExit) as status:
        command.main([str(tmp_path)])
    assert status.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {tmp_path / 'x.parquet'}: is not there")
    assert err.count("\n") == 1


def test_nothing_is_accepted_where_nobody_checks(sweep):
    accepted = next(column for column in table.detail_columns([]) if column.title == "accepted")
    small, ours = sweep[0].method("small"), sweep[0].method("policy")
    assert small["rates"]["acceptance"] is None
    assert accepted.read(small) == table.NOTHING
    assert accepted.read({**small, "rates": {"acceptance": 1.0}}) == table.NOTHING, "as older results have it"
    assert accepted.read(ours) == table.percent(ours["rates"]["acceptance"])


def test_layers_are_told_where_tokens_may_leave_early():
    early, whole, older = ({"rates": rates} for rates in ({"mean_layers": 2.345}, {"mean_layers": None}, {}))
    layers = table.detail_columns([whole, early, older])[-1]
    assert layers.title == "layers per token"
    assert [layers.read(entry) for entry in (early, whole, older)] == ["2.35", table.NOTHING, table.NOTHING]
    assert layers.title not in [column.title for column in table.detail_columns([whole, older])]


def test_an_interrupted_measurement_is_told(sweep, tmp_path):
    one = variant(sweep[0], 1.0, 1.0)
    assert dict(report.common_facts(one.content))["timed"] == "4 examples, one at a time, float32 on cpu"
    one.content["run"]["timing_processes"] = 2
    told = dict(report.common_facts(one.content))["timed"]
    assert told.endswith("by 2 processes, one after the other: it was interrupted")
    del one.content["run"]["timing_processes"]
    assert "processes" not in dict(report.common_facts(one.content))["timed"], "older results do not tell"


def test_numbers_for_people():
    assert table.percent(None) == table.number(None, 2) == "–"
    assert table.percent(0.1234) == "12.3 %"
    assert table.speedup({"value": 1.5, "low": 1.25, "high": 2}, is_unit=False) == "1.50x (1.25–2.00)"
    assert re.fullmatch(r"1\.00x", table.speedup({"value": 1.0, "low": 1, "high": 1}, is_unit=True))
