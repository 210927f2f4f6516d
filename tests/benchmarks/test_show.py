"""Tables and plots come from the files alone; matplotlib may be missing."""

import ast
import json
import sys
from pathlib import Path

import pytest

from benchmarks import plots, table
from pipelines.readme import with_tables
from tests.benchmarks.conftest import COMMANDS, ROOT


@pytest.mark.parametrize("mode", COMMANDS)
def test_table_and_plot(mode: str, result, monkeypatch, capsys) -> None:
    found = result(mode)
    assert "static" in found.path.with_suffix(".svg").read_text()
    monkeypatch.setattr(sys, "argv", ["table", str(found.path)])
    table.main()
    assert capsys.readouterr().out == found.printed
    lines = [line for line in found.printed.splitlines() if line.startswith("|")]
    assert len(lines) > 4
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1
    assert str(found.content["provenance"]["git"]["revision"])[:7] in found.printed
    assert (", inflated" in found.printed) == (mode == "inflate")


@pytest.mark.parametrize("mode", COMMANDS)
def test_the_readme_shows_the_same_table(mode: str, result) -> None:
    found = result(mode)
    text = f"<!-- results: {found.path} -->\nold\n<!-- end of results -->\n"
    shown = with_tables(text)
    assert found.printed.strip() in shown
    assert "old" not in shown
    assert with_tables(shown) == shown


def test_no_plot_without_matplotlib(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plots.draw({"mode": "pair"}, tmp_path / "x.svg") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, "{", '{"kind": "evaluation"}', "[]"])
def test_other_files_are_refused_in_one_line(content: str | None, tmp_path: Path, monkeypatch, capsys) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(sys, "argv", ["table", str(path)])
    with pytest.raises(SystemExit) as left:
        table.main()
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {path}: ")
    assert printed.err.count("\n") == 1


def test_numbers() -> None:
    assert table.number(None, 1) == "–"
    assert table.number(1234.56, 1) == "1,234.6"
    assert table.percent(0.123) == "12.3 %"
    assert table.factor({"value": 2.0, "low": 1.5, "high": 2.5}) == "2.00x (1.50–2.50)"
    assert table.factor({"value": 1.0, "low": 1.0, "high": 1.0}) == "1.00x"


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda path: path.name)
def test_torch_and_transformers_are_enough(path: Path) -> None:
    """Whatever else a file imports, it imports where it is used; numpy comes with transformers."""
    tree = ast.parse(path.read_text())
    roots = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(str(node.module).split(".")[0])
    assert roots <= set(sys.stdlib_module_names) | {"torch", "transformers", "numpy", "bild", "benchmarks"}
    assert len(path.read_text().splitlines()) <= 320


def test_the_data_are_rows_of_source_and_target() -> None:
    for split in ("validation", "test"):
        lines = (ROOT / f"benchmarks/data/toy_de_en-{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 200
        assert all(set(json.loads(line)) == {"source", "target"} for line in lines)
