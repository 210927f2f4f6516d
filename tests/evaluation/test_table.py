"""Tables in terminals of any width: every word of every cell is there, whole."""

import re

import pytest

from pipelines.evaluation.table import print_rows

NAMES = [f"SpeculativeCascade rule=token_v3 alpha={alpha} verify_eos=True" for alpha in (0.1, 0.3, 0.5)]
TITLES = ["policy", "speedup, proposing", "score", "broken where a point passes", "outcome"]
ROWS = [[name, "1.18x (1.13–1.22)", "34.81", "100.0 %", "passed"] for name in NAMES]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_nothing_that_tells_two_rows_apart_is_cut(width, monkeypatch, capsys):
    for name, value in {"COLUMNS": str(width), "FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    print_rows("[a] :key:", TITLES, ROWS)
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    words = " ".join(lines).split()
    assert words[:2] == ["[a]", ":key:"], "it is no markup"
    assert {word for row in [TITLES, *ROWS] for cell in row for word in cell.split()} <= set(words)
    assert all(words.count(f"alpha={alpha}") == 1 for alpha in (0.1, 0.3, 0.5))
    assert any("100.0 %" in line for line in lines)
    if width >= 80:
        assert max(map(len, lines)) <= width
