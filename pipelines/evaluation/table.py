"""Results as rows of short strings, for the terminal and for the report alike.

Knows the schema of a result and how people read numbers; knows nothing about models or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from pipelines.cli import counted
from pipelines.decoding.scoring import HEADLINE
from pipelines.evaluation.command import HASH_DIGITS
from pipelines.evaluation.measures import acceptance
from pipelines.evaluation.results import Result
from pipelines.models.fingerprint import key

NOTHING = "–"
METRIC_TITLES = {
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "exact_match": "exact match",
    "f1": "F1",
}
PIPE_WIDTH = 100  # columns of a table that goes to a file or a pipe
WIDE = 1000  # columns, more than any table needs


@dataclass(frozen=True)
class Column:
    """One column: its header, what it means, and how to read it off a method's entry of a result."""

    title: str
    meaning: str
    read: Callable[[dict[str, Any]], str]
    absolute: bool = False
    """a time or a rate of the clock, which says nothing beside that of another run: a machine is not always as fast"""


@dataclass(frozen=True)
class Line:
    """One method of one result."""

    entry: dict[str, Any]
    result: Result
    is_policy: bool


def main_columns(metric: str) -> list[Column]:
    """The result table: what it costs, what it gives."""
    title = METRIC_TITLES[HEADLINE[metric]]
    return [
        Column("method", "who decodes", lambda entry: entry["label"]),
        Column(title, "quality on the whole split, 0 to 100", lambda entry: number(entry["quality"]["score"], 2)),
        Column(
            "tokens/s",
            "written tokens per second, one example at a time, both encoders included",
            lambda entry: number(entry["latency"]["tokens_per_second"], 1),
            absolute=True,
        ),
        Column(
            "speedup",
            "time of the large model alone over time of the method on the same examples, with its 95 % interval",
            lambda entry: speedup(entry["latency"]["speedup"], entry["method"] == "large"),
        ),
        Column(
            "large share",
            "share of the written tokens that the large model wrote",
            lambda entry: percent(entry["rates"]["large_share"]),
        ),
        Column(
            "same as large",
            "share of the texts that are token for token what the large model alone writes",
            lambda entry: percent(entry["rates"]["exact_match_with_large"]),
        ),
    ]


def detail_columns(entries: Sequence[dict[str, Any]]) -> list[Column]:
    """How these methods came to their speed."""

    def rate(name: str, show: Callable[[float | None], str]) -> Callable[[dict[str, Any]], str]:
        return lambda entry: show(entry["rates"][name])

    columns = [
        Column("method", "who decodes", lambda entry: entry["label"]),
        Column("median ms", "time per example, half are faster", _milliseconds("median_ms"), absolute=True),
        Column("p90 ms", "time per example, nine of ten are faster", _milliseconds("p90_ms"), absolute=True),
        Column("speedup, decoder", "speedup with the time of the encoders left out", _decode_speedup),
        Column("accepted", "share of the drafted tokens that stand", _accepted),
        Column(
            "tokens per large step",
            "written tokens per pass of the large model",
            rate("mean_accepted_length", lambda value: number(value, 2)),
        ),
        Column("fallbacks", "share of rounds whose draft low confidence ended", rate("fallback_rate", percent)),
        Column("rollbacks", "share of rounds in which a drafted token was replaced", rate("rollback_rate", percent)),
    ]
    if any(_layers(entry) is not None for entry in entries):
        meaning = "decoder layers of the large model per written token; none where each takes all of them"
        columns.append(Column("layers per token", meaning, lambda entry: number(_layers(entry), 2)))
    return columns


def lines(results: Sequence[Result]) -> list[Line]:
    """The baselines once, then every policy.

    Baselines are timed again beside every policy; of these, the run with the median time of the large model is shown.
    """
    typical = typical_run(results)
    alone = [entry for entry in typical.content["methods"] if entry["method"] != "policy"]
    baselines = [Line(entry, typical, is_policy=False) for entry in alone]
    own = [result for result in results if result.content["run"]["policy_method"] == "policy"]
    return baselines + [Line(result.method("policy"), result, is_policy=True) for result in own]


def of_runs(columns: Sequence[Column], results: Sequence[Result]) -> list[Column]:
    """The columns of a table of these results: of several, those that can be read from line to line."""
    return [column for column in columns if len(results) == 1 or not column.absolute]


def disturbance(content: dict[str, Any]) -> str | None:
    """A sentence about a measurement that something else on the machine seems to have disturbed."""
    found = content["run"].get("steadiness")  # older results do not tell, and of a few examples nothing is known
    if found is None or not found["disturbed"]:
        return None
    return (
        f"disturbed: a token of the large model alone took {found['second_half_over_first']:.2f} times as long in the "
        f"second half of the timed examples as in the first, and on average {found['mean_over_median']:.2f} times its "
        "median; its times are not to be trusted, run it again on a quiet machine"
    )


def typical_run(results: Sequence[Result]) -> Result:
    """The run whose large model alone took the median time."""
    times = {result.method("large")["latency"]["mean_ms"]: result for result in results}
    return times[median_low(times)]


def conditions(content: dict[str, Any]) -> dict[str, str]:
    """What the results of one table have in common, by name: rows, models, device, and how texts are written, but for
    the seed. Hashes are as short as in names of results."""
    task = content["task"]
    prompt = task.get("prompt")  # older results know none, and no one_line
    common = {
        "task": task["name"],
        "split": task["split"],
        "data": task["data"][:HASH_DIGITS],
        **{role: f"{model['name']} {model['weights'][:HASH_DIGITS]}" for role, model in content["models"].items()},
        "device": content["run"]["device"],
        "task.prefix": repr(task["prefix"]),
        "task.prompt": None if prompt is None else key(prompt)[:HASH_DIGITS],
        "task.source_length": task["source_length"],
        "one_line": False,
        **content["decoding"],
    }
    return {name: "null" if value is None else str(value) for name, value in common.items() if name != "seed"}


def groups(results: Sequence[Result]) -> list[list[Result]]:
    """Results that may stand in one table: those of the same ``conditions``."""
    found: dict[frozenset[tuple[str, str]], list[Result]] = {}
    for result in results:
        found.setdefault(frozenset(conditions(result.content).items()), []).append(result)
    return list(found.values())


def distinctions(groups: Sequence[Sequence[Result]]) -> list[str]:
    """For each group, what not all of them have in common; task and split are in a table's title anyway."""
    found = [conditions(group[0].content) for group in groups]
    differing = [name for name in found[0] if len({one[name] for one in found}) > 1 and name not in ("task", "split")]
    return [", ".join(f"{name}={one[name]}" for name in differing) for one in found]


def print_tables(results: Sequence[Result]) -> None:
    """Print the result table and the details below it, for each group of comparable results."""
    found = groups(results)
    for group, differs in zip(found, distinctions(found), strict=True):
        task, apart = group[0].content["task"], f"; {differs}" if differs else ""
        title = f"{task['name']}, {task['split']}, {counted(task['examples'], 'example')}{apart}"
        shown = lines(group)
        bold = [index for index, line in enumerate(shown) if line.is_policy]
        entries = [line.entry for line in shown]
        print_table(title, of_runs(main_columns(task["metric"]), group), entries, bold)
        print_table(f"how it came about{apart}", of_runs(detail_columns(entries), group), entries, bold)
        for result in group:
            if (told := disturbance(result.content)) is not None:
                print(f"{result.content['name']}: {told}")


def print_table(title: str, columns: Sequence[Column], entries: Sequence[dict[str, Any]], bold: Sequence[int]) -> None:
    """Print one table with a title, a line for each entry; the lines at these indices stand out."""
    rows = [[column.read(entry) for column in columns] for entry in entries]
    print_rows(title, [column.title for column in columns], rows, bold)


def print_rows(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[int] = ()) -> None:
    """The same of strings. Cells break between words alone, and none is cut, for rows may differ in their last word: a
    terminal too narrow for the longest word of every column breaks the lines itself."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cells = list(zip(titles, *rows, strict=True))
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(cells):
        longest = max(len(word) for cell in column for word in cell.replace(" %", "_%").split())
        table.add_column(column[0], justify="left" if index == 0 else "right", width=longest)
    for index, row in enumerate(rows):
        table.add_row(*row, style="bold" if index in bold else None)
    console = Console(highlight=False, markup=False, emoji=False)  # a word in brackets is a word
    least = console.measure(table, options=console.options.update(width=WIDE)).minimum
    console.width = max(console.width, least if console.is_terminal else max(least, PIPE_WIDTH))
    spare = console.width - least
    # Whole cells while there is room; names, in the first column, are the longest and read well on several lines.
    for made, column in zip(reversed(table.columns), reversed(cells), strict=True):
        wider = min(spare, max(map(len, column)) - made.width)
        made.width, spare = made.width + wider, spare - wider
    console.print(table)


def number(value: float | None, digits: int) -> str:
    """A number with so many digits behind the point."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def percent(share: float | None) -> str:
    """A share of 1 in percent."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def speedup(interval: dict[str, float], is_unit: bool) -> str:
    """A factor with its interval; the unit itself has none."""
    if is_unit:
        return "1.00x"
    return f"{interval['value']:.2f}x ({interval['low']:.2f}–{interval['high']:.2f})"


def _milliseconds(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda entry: number(entry["latency"][name], 1)


def _layers(entry: dict[str, Any]) -> float | None:
    layers: float | None = entry["rates"].get("mean_layers")  # older results lack it
    return layers


def _accepted(entry: dict[str, Any]) -> str:
    # From the counts: older results hold 1 where nobody has checked.
    return percent(acceptance(entry["counts"]))


def _decode_speedup(entry: dict[str, Any]) -> str:
    return f"{entry['latency']['decode_only']['speedup']['value']:.2f}x"
