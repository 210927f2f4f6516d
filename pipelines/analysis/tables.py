"""An analysis as rows of short strings, for the terminal and for the report alike. Knows the schema of an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.cli import counted
from pipelines.decoding.scoring import HEADLINE
from pipelines.evaluation.table import METRIC_TITLES, Column, number, percent, print_table, speedup

Content = dict[str, Any]
SERIES = {
    "lossless": "lossless decoding",
    "both": "fallback and rollback",
    "no_rollback": "without rollback",
    "no_fallback": "without fallback",
    "mixing": "oracle",
}
ABLATED = ("both", "no_rollback", "no_fallback")
KNOWN = {
    "confidence": "confidence: mean of the small model's largest probability",
    "right": "right: share of its first choices that the large model writes",
    "calibration_error": "calibration error: mean distance of the two, bin by bin",
    "guessed": "guessed: share of positions at which there is a guess",
    "accepted_if_guessed": "chance that a guess stands",
}
TOLERATED = 0.3  # points of quality
WAYS = {
    "formula": "speedup of decoding by Leviathan's formula, from alpha and c",
    "positions": "the same with the steps that these texts take, position by position, in place of the expectation",
    "widths": "and with a large step at its cost by the number of tokens in it",
    "loop": "and with what the loop adds to every step of either model",
}


@dataclass(frozen=True)
class Table:
    """What is printed under one title; ``marked`` are the entries that stand out."""

    title: str
    columns: list[Column]
    entries: list[dict[str, Any]]
    marked: list[int]


def all_tables(content: Content) -> dict[str, Table]:
    """By the name that the report knows them by; those of what this pair can do."""
    made = {"agreement": agreement(content)}
    if "by_confidence" in content["agreement"]:
        made["reliability"] = reliability(content)
    made |= {"steps": steps(content), "tokens": tokens(content), "speedups": speedups(content)}
    if series(content, "mixing"):
        made["mixing"] = mixing(content)
    if ablated(content):
        made["ablation"] = ablation(content)
    return made


def print_all(content: Content) -> None:
    """Print every table."""
    for table in all_tables(content).values():
        print_table(table.title, table.columns, table.entries, table.marked)


def agreement(content: Content) -> Table:
    """The figures of the whole split, one a line."""
    found = content["agreement"]
    lines = [
        ("alpha: chance that a drafted token stands", interval(found["alpha"], 3)),
        ("the same of the plain distributions, on the same texts", interval(found["plain_alpha"], 3)),
        ("share of positions at which both sides have the same first choice", interval(found["same_choice"], 3)),
        *((title, number(found[name], 3)) for name, title in KNOWN.items() if name in found),
        ("c: a step of what drafts in steps of the large model", interval(content["steps"]["c"], 3)),
    ]
    columns = [
        Column("figure", "", lambda line: line[0]),
        Column("value", "with its 95 % interval", lambda line: line[1]),
    ]
    task = content["task"]
    where = f"{task['name']}, {task['split']}, {counted(found['examples'], 'example')}"
    return Table(f"{where}, {counted(found['positions'], 'position')}", columns, lines, [0])


def reliability(content: Content) -> Table:
    """Bins of confidence."""
    columns = [
        Column("confidence", "the small model's largest probability", lambda e: f"{e['low']:g} to {e['high']:g}"),
        Column("positions", "how many lie there", lambda e: f"{e['positions']:,}"),
        Column("mean", "of the confidence", lambda e: number(e["confidence"], 3)),
        Column("right", "share of its first choices that the large model writes", lambda e: number(e["right"], 3)),
        Column("alpha", "chance that a drafted token stands", lambda e: number(e["alpha"], 3)),
    ]
    return Table("can confidence be believed?", columns, content["agreement"]["by_confidence"], [])


def steps(content: Content) -> Table:
    """What steps cost, by model and width."""
    small = {"width": None, "ms": content["steps"]["small_ms"], "over_one": content["steps"]["c"]}
    columns = [
        Column("step", "and tokens in it", lambda e: "small, 1" if e["width"] is None else f"large, {e['width']}"),
        Column("ms", "median", lambda e: number(e["ms"], 3)),
        Column("in large steps", "over a large step of one token", lambda e: interval(e["over_one"], 3)),
    ]
    return Table("step costs", columns, [small, *content["steps"]["large"]], [])


def tokens(content: Content) -> Table:
    """Lossless decoding: tokens per large step, predicted and counted."""

    def predicted(way: str) -> Column:
        meaning = {"formula": "(1 - alpha^(g+1)) / (1 - alpha)", "positions": "position by position of these texts"}
        return Column(way, meaning[way], lambda e: number(e["predicted_tokens_per_large_step"][way], 2))

    columns = [
        _draft_length(),
        predicted("formula"),
        predicted("positions"),
        Column("counted", "as decoded", lambda e: number(e["rates"]["mean_accepted_length"], 2)),
        Column("accepted", "share of the drafted tokens that stand", lambda e: percent(e["rates"]["acceptance"])),
        _same(),
    ]
    return Table(
        "lossless decoding, tokens per large step", columns, content["draft_lengths"]["points"], _best(content)
    )


def speedups(content: Content) -> Table:
    """Lossless decoding: speedups, predicted and measured; the fastest measured one is marked."""
    columns = [
        _draft_length(),
        *(_way(way, WAYS[way]) for way in ways(content)),
        Column(
            "measured",
            "speedup of decoding over the large model alone, with its 95 % interval",
            lambda e: speedup(e["latency"]["decode_only"]["speedup"], False),
        ),
        Column("end to end", "measured, with both encoders", lambda e: f"{e['latency']['speedup']['value']:.2f}x"),
    ]
    title = f"lossless decoding, speedup, {counted(content['run']['timed_examples'], 'example')}"
    return Table(title, columns, content["draft_lengths"]["points"], _best(content))


def mixing(content: Content) -> Table:
    """The oracle, from the small model alone to the large one; the smallest share that loses next to nothing, as far as
    is known, is marked."""
    entries = series(content, "mixing")
    shares = [entry["rates"]["large_share"] for entry in entries]
    enough = enough_share(content)
    columns = [
        Column(
            "threshold",
            "a token is replaced where the large model's probability of it is lower",
            lambda e: f"{e['setting']:g}",
        ),
        Column(
            "large share",
            "share of the tokens that the large model wrote",
            lambda e: percent(e["rates"]["large_share"]),
        ),
        *_quality(content),
    ]
    return Table("oracle mixing", columns, entries, [index for index, share in enumerate(shares) if share == enough])


def ablation(content: Content) -> Table:
    """BigLittle with one of its halves taken away, beside both models alone."""
    entries = [*content["baselines"].values()]
    entries += [entry for name in ablated(content) for entry in series(content, name)]
    columns = [
        Column("system", "", _system),
        *_quality(content),
        Column(
            "speedup",
            "over the large model alone, both encoders included, with its 95 % interval",
            lambda e: speedup(e["latency"]["speedup"], e is entries[0]),
        ),
        Column(
            "large share",
            "share of the tokens that the large model wrote",
            lambda e: percent(e["rates"]["large_share"]),
        ),
    ]
    return Table("what fallback and rollback are worth", columns, entries, [])


def series(content: Content, name: str) -> list[dict[str, Any]]:
    """The systems of one series, by what varies in it."""
    return sorted((one for one in content["systems"] if one["series"] == name), key=lambda one: one["setting"])


def ablated(content: Content) -> list[str]:
    """The series of the ablation that this pair can do."""
    return [name for name in ABLATED if series(content, name)]


def ways(content: Content) -> list[str]:
    """The predictions of a speedup that can be made of this pair."""
    return list(content["draft_lengths"]["points"][0]["predicted_speedup"])


def enough_share(content: Content) -> float | None:
    """The smallest share of large tokens with which the oracle is known to lose less than ``TOLERATED`` points: the
    lower end of the difference to the large model is above that. The smallest of many noisy scores that happen to
    reach the large model's would be too good."""
    entries = [e for e in series(content, "mixing") if e["quality"]["difference_to_large"]["low"] > -TOLERATED]
    return min((e["rates"]["large_share"] for e in entries), default=None)


def metric_title(content: Content) -> str:
    """Of the score that stands for quality."""
    return METRIC_TITLES[HEADLINE[content["task"]["metric"]]]


def interval(value: dict[str, float], digits: int) -> str:
    """A number with its interval."""
    return f"{value['value']:.{digits}f} ({value['low']:.{digits}f}–{value['high']:.{digits}f})"


def _best(content: Content) -> list[int]:
    found = content["draft_lengths"]
    return [at for at, point in enumerate(found["points"]) if point["draft_length"] == found["best"]["measured"]]


def _draft_length() -> Column:
    return Column("draft length", "tokens drafted in a round", lambda e: str(e["draft_length"]))


def _same() -> Column:
    meaning = "share of the texts that are token for token the large model's"
    return Column("same", meaning, lambda e: percent(e["rates"]["exact_match_with_large"]))


def _way(way: str, meaning: str) -> Column:
    return Column(way, meaning, lambda entry: f"{entry['predicted_speedup'][way]:.2f}x")


def _quality(content: Content) -> Sequence[Column]:
    meaning = "quality on the whole split, 0 to 100"
    return Column(metric_title(content), meaning, lambda e: number(e["quality"]["score"], 2)), _same()


def _system(entry: dict[str, Any]) -> str:
    if "series" not in entry:
        return entry["label"]
    varying = "draft length" if entry["series"] == "no_fallback" else "fallback"
    return f"{SERIES[entry['series']]}, {varying} {entry['setting']:g}"
