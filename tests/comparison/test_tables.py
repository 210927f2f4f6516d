"""What is read off a comparison: the fastest, the best at a speed, who is alike or equal in law; and the picture."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.comparison import plots, tables
from pipelines.comparison.equal_time import SPEEDUPS, best_at_speedups
from pipelines.comparison.run import alike
from pipelines.decoding.rows import DecodedRow
from pipelines.evaluation.plots import empty_figures
from tests.evaluation.conftest import stats

NOISE = 0.5


def entry(system: str, setting: str, speedup: float, quality: float, **told) -> dict:
    off = quality - 30
    return {
        "method": f"{system} {setting}".strip(),
        "system": system,
        "setting": setting,
        "label": system,
        "lossless": False,
        "same_rows_as": None,
        "quality": {"score": quality, "difference_to_large": {"value": off, "low": off - NOISE, "high": off + NOISE}},
        "latency": {"speedup": {"value": speedup}},
        **told,
    }


PANEL = {
    "temperature": 0.0,
    "methods": [
        entry("large", "", 1, 30),
        entry("small", "", 4, 20),
        entry("a_b", "1", 1.5, 29.8),
        entry("a_b", "2", 2, 29.2),
        entry("a_b", "3", 3, 22),
        entry("c", "", 1.2, 31),
    ],
    "best_at": [],
}


def named(panel: dict) -> dict[str, list[str]]:
    return {name: cells for name, *cells in tables.system_rows(panel)}


def test_the_fastest_within_a_loss():
    assert named(PANEL) == {
        "a b": ["1.50x, 29.80 (1)", "2.00x, 29.20 (2)"],
        "c": ["1.20x, 31.00", "1.20x, 31.00"],
    }
    slow = {**PANEL, "methods": [entry("large", "", 1, 30), entry("a", "", 3, 10)]}
    assert named(slow) == {"a": ["–", "–"]}


def test_the_best_of_each_system_that_is_as_fast():
    level = {
        "speedup": 1.5,
        "best": "d",
        "points": [
            {"method": "a_b 1", "off_best": {"value": -0.4, "low": -1.0, "high": 0.2}},
            {"method": "d", "off_best": {"value": 0.0, "low": 0.0, "high": 0.0}},
            {"method": "e 7", "off_best": {"value": -2.0, "low": -3.0, "high": -1.0}},
        ],
    }
    methods = [*PANEL["methods"], entry("d", "", 1.6, 30.2), entry("e", "7", 2.5, 28.2)]
    found = named({**PANEL, "methods": methods, "best_at": [level]})
    assert {name: cells[-1] for name, cells in found.items()} == {
        "a b": "29.80 (1) ≈",
        "c": "–",
        "d": "30.20 ▲",
        "e": "28.20 (7)",
    }


def test_what_is_lossless_loses_nothing_however_unlucky_its_draws():
    unlucky = entry("exact", "5", 1.2, 28, lossless=True)
    methods = [*PANEL["methods"][:2], unlucky, entry("lossy", "", 1.3, 28)]
    greedy, sampled = ({**PANEL, "methods": methods, "temperature": one} for one in (0.0, 1.0))
    assert named(sampled) == {"exact": ["1.20x, equal in law (5)"] * 2, "lossy": ["–", "–"]}
    assert named(greedy)["exact"] == ["1.20x, 28.00 (5)"] * 2
    [*_, off] = tables.all_columns("bleu", sampled)
    assert [off.read(one) for one in methods] == [
        "–",
        "-10.00 (-10.50 to -9.50)",
        "equal in law",
        "-2.00 (-2.50 to -1.50)",
    ]
    assert plots._point(unlucky, 30, sampled) == (1 / 1.2, 30)
    assert plots._point(unlucky, 30, greedy) == (1 / 1.2, 28)


def test_systems_of_one_policy_are_explained_together():
    told = [{**one, "summary": "writes" if one["system"] == "c" else "drafts"} for one in PANEL["methods"]]
    told.append({**entry("d", "", 1, 30), "summary": "drafts"})
    panels = [{"methods": told}, {"methods": told[::-1]}]
    assert tables.what_they_do({"panels": panels}) == [("a b, d", "drafts"), ("c", "writes")]
    assert tables.what_they_do({"panels": [PANEL]}) == [], "older results do not tell"


def row(tokens: list[int], **counts) -> DecodedRow:
    return DecodedRow("text", tokens, stats(**counts), [])


def test_methods_are_alike_that_write_the_same_in_the_same_steps():
    one, other = row([5, 1], large_steps=2), row([6, 1], large_steps=2)
    steps = row([5, 1], large_steps=1)
    decoded = {"a": [one, other], "b": [one, other], "c": [one, one], "d": [steps, other], "e": [one, other]}
    assert alike(decoded) == {"a": None, "b": "a", "c": None, "d": None, "e": "a"}


def test_systems_that_are_alike_share_a_row():
    methods = [
        *PANEL["methods"],
        entry("twin", "1", 1.55, 29.8, same_rows_as="a_b 1"),
        entry("twin", "3", 3.1, 22, same_rows_as="a_b 3"),
        entry("half", "1", 1.6, 29.8, same_rows_as="a_b 1"),
        entry("half", "9", 1.7, 29.0),
        entry("itself", "1", 1.5, 29.0),
        entry("itself", "2", 1.5, 29.0, same_rows_as="itself 1"),
        entry("copies", "", 1, 30, same_rows_as="large"),
    ]
    found = named({**PANEL, "methods": methods})
    assert list(found) == ["a b = twin", "c", "half", "itself", "copies"]
    assert found["a b = twin"] == ["1.50x, 29.80 (1)", "2.00x, 29.20 (2)"], "the first one's points and times"


def test_systems_are_compared_at_equal_time():
    rng = np.random.default_rng(0)
    level = {"large": 50, "a 1": 60, "a 2": 40, "b": 45, "exact": 10, "slow": 90}
    statistics = {name: mean + rng.standard_normal((300, 2, 1)) for name, mean in level.items()}
    statistics["b2"] = statistics["b"] + rng.standard_normal((300, 2, 1))
    entries = [
        entry("a", "1", 1.3, 0),
        entry("a", "2", 2.1, 0),
        entry("b", "", 1.6, 0),
        entry("b2", "", 1.6, 0),
        entry("exact", "", 1.5, 0, lossless=True),
        entry("slow", "", 1.2, 0),
    ]
    found = {one["speedup"]: one for one in best_at_speedups(entries, statistics, "number", seed=0)}
    assert tuple(found) == SPEEDUPS
    assert {speedup: one["best"] for speedup, one in found.items()} == {
        1.25: "a 1",
        1.5: "exact",
        1.75: "a 2",
        2: "a 2",
    }
    off = {point["method"]: point["off_best"] for point in found[1.5]["points"]}
    assert off.keys() == {"a 2", "b", "b2", "exact"}
    assert off["exact"] == {"value": 0, "low": 0, "high": 0}, "it has the large model's quality, not its own draws'"
    assert off["b"]["value"] == pytest.approx(-5, abs=0.3)
    assert off["b"]["low"] < off["b"]["value"] < off["b"]["high"] < 0
    assert best_at_speedups(entries[-1:], statistics, "number", seed=0) == []


def test_the_front_is_what_nothing_beats_in_both():
    points = [(0.5, 20), (1, 30), (0.6, 25), (0.6, 24), (0.7, 22), (0.4, 10), (0.5, 20)]
    assert [points[place] for place in plots.front(points)] == [(0.4, 10), (0.5, 20), (0.6, 25), (1, 30)]


def drawn(panel: dict, names: list[str]) -> tuple[dict, list[str]]:
    _, [axes] = empty_figures(4, 4, 1)
    plots._draw(axes, panel, names)
    return {line.get_label(): line for line in axes.lines}, [text.get_text() for text in axes.texts]


def test_the_plane_has_time_across_and_quality_upwards():
    """A system's points in the order of their time, however they stand in the result; each model alone in its place."""
    lines, texts = drawn({**PANEL, "methods": PANEL["methods"][::-1]}, ["a_b", "c"])
    at = {name: (list(line.get_xdata()), list(line.get_ydata())) for name, line in lines.items()}
    assert at.pop("a b") == ([1 / 3, 1 / 2, 1 / 1.5], [22, 29.2, 29.8])
    assert at.pop("c") == ([1 / 1.2], [31])
    assert at.pop("small") == ([1 / 4], [20])
    assert at.pop("large") == ([1], [30])
    assert at.pop("nothing is better and faster") == ([1 / 4, 1 / 3, 1 / 2, 1 / 1.5, 1 / 1.2], [20, 22, 29.2, 29.8, 31])
    [(_, level)] = at.values()
    assert level == [30, 30], "the large model's quality is a line to compare with"
    assert {"1", "2", "3", "small", "a b 1", "a b 2", "a b 3", "c"} <= set(texts), (
        "points are named, those in front in full"
    )
    assert "large" not in texts


def test_a_system_looks_the_same_in_every_picture():
    alone = {**PANEL, "methods": [one for one in PANEL["methods"] if one["system"] != "a_b"]}
    looks = [
        (line.get_color(), line.get_marker()) for line in (drawn(one, ["a_b", "c"])[0]["c"] for one in (PANEL, alone))
    ]
    assert looks[0] == looks[1]


def test_the_picture_names_every_system_once_and_both_models():
    methods = [
        {**one, "label": f"{one['label']} alone"} if one["system"] in tables.BASELINES else one
        for one in PANEL["methods"]
    ]
    panel = {**PANEL, "methods": methods}
    picture = plots.plane({"task": {"metric": "bleu"}, "panels": [panel, {**panel, "temperature": 1.0}]})
    for name in ("large alone", "a b", "greedy", "sampled at temperature 1", "BLEU"):
        assert picture.count(f">{name}<") == 1
