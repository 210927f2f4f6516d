"""Put the tables of committed results into README.md: ``python -m pipelines.readme``.

A table stands between ``<!-- results: PATH [PATH ...] -->`` and ``<!-- end of results -->``; the paths are JSON files
of ``pipelines.evaluate`` or ``pipelines.align``, or one of ``pipelines.calibrate``, ``pipelines.compare``,
``pipelines.analyze`` or ``benchmarks.latency``. The numbers come from these files alone.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cli import UserError, counted, one_line
from pipelines.files import write_text

if TYPE_CHECKING:
    from pipelines.evaluation.table import Column

README = Path("README.md")
DETAILS = ("speedup, decoder", "accepted", "tokens per large step", "layers per token")
BLOCK = re.compile(r"(<!-- results: (?P<paths>.+?) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def main() -> None:
    """Rewrite README.md in the working directory."""
    with one_line("readme"):
        if sys.argv[1:]:
            given = shlex.join(sys.argv[1:])
            raise UserError(f"{given}: readme takes no arguments; which files it shows stands in README.md")
        write_text(with_tables(README.read_text(encoding="utf-8")), README)


def with_tables(text: str) -> str:
    """The text with every table made anew."""

    def rewrite(block: re.Match[str]) -> str:
        paths = [Path(path) for path in block["paths"].split()]
        first = json.loads(paths[0].read_text(encoding="utf-8"))
        if first["kind"] == "alignment" and len(paths) > 1:
            table = methods_table([json.loads(path.read_text(encoding="utf-8")) for path in paths])
        elif first["kind"] == "alignment":
            table = alignment_table(first)
        elif first["kind"] == "comparison":
            table = comparison_table(first)
        elif first["kind"] == "analysis":
            table = analysis_table(first)
        elif first["kind"] == "coverage":
            table = coverage_table(first)
        elif first["kind"] == "benchmark":
            table = benchmark_table(first)
        else:
            table = markdown(paths)
        return f"{block[1]}\n{table}\n{block[3]}"

    return BLOCK.sub(rewrite, text)


def markdown(paths: Sequence[Path]) -> str:
    """The result table of some runs of one task and pair, and below it where and how it was measured.

    Raises:
        UserError: results that may not stand in one table.
    """
    from pipelines.evaluation import results, table

    found = results.find(paths)
    told = table.distinctions(table.groups(found))
    if len(told) > 1:
        raise UserError(f"{README}: one table of results that differ ({'; '.join(told)}); give each kind its own")
    entries = [line.entry for line in table.lines(found)]
    details = [column for column in table.detail_columns(entries) if column.title in DETAILS]
    columns = table.of_runs([*table.main_columns(found[0].content["task"]["metric"]), *details], found)
    body = _table(columns, entries)
    return f"{body}\n{_provenance(found[0].content)}\n"


def alignment_table(content: dict[str, Any]) -> str:
    """What alignment changed, each figure with the interval of its change."""
    rows = "| | before | after | change | 95 % interval |\n| --- | ---: | ---: | ---: | ---: |\n"
    for figure in content["figures"].values():
        change = figure["difference"]
        rows += (
            f"| {figure['label']} | {_number(figure['before'])} | {_number(figure['after'])} | "
            f"{_number(change['value'], '+')} | {_number(change['low'], '+')} to {_number(change['high'], '+')} |\n"
        )
    return rows


def comparison_table(content: dict[str, Any]) -> str:
    """What each system gives at a loss of quality and at a speed, at each temperature, and how it was measured."""
    from pipelines.comparison import tables

    text = ""
    for panel in content["panels"]:
        columns = tables.system_columns(content["task"]["metric"], panel)
        title = f"{tables.heading(panel)}; large alone {tables.large_score(panel):.2f}"
        columns[0] = replace(columns[0], title=title)
        text += _table(columns, tables.system_rows(panel)) + "\n"
    return f"{text}{_provenance({**content, 'run': content['panels'][0]['run']})}\n"


def analysis_table(content: dict[str, Any]) -> str:
    """How alike a pair is, its speedups by draft length as predicted and measured, and what the report says of both."""
    from pipelines.analysis import report, tables

    shown = tables.all_tables(content)
    words = [report.verdict(content), *([report.mixing_words(content)] if "mixing" in shown else [])]
    text = "".join(_table(shown[name].columns, shown[name].entries) + "\n" for name in ("agreement", "speedups"))
    return f"{text}{' '.join(words)}\n\n{_provenance(content)}\n"


def _table(columns: Sequence[Column], entries: Sequence[Any]) -> str:
    """Markdown, the first column on the left."""
    rows = [[column.title for column in columns], ["---", *["---:"] * (len(columns) - 1)]]
    rows += [[column.read(entry) for column in columns] for entry in entries]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def methods_table(contents: Sequence[dict[str, Any]]) -> str:
    """Alignments of one small model side by side, the model before them first, and below it how they were made.

    Raises:
        ValueError: they did not start from the same models, or were not measured in the same way.
    """
    first = contents[0]
    same = [[c["models"]["large"], c["models"]["before"], c["policy"], c["report"]] for c in contents]
    if any(one != same[0] for one in same):
        raise ValueError(f"{first['name']}: not all of these alignments compare the same models in the same way")
    names = list(first["figures"])
    rows = [["method", *(first["figures"][name]["label"] for name in names)]]
    rows += [["---", *["---:"] * len(names)]]
    rows += [["before", *(_number(first["figures"][name]["before"]) for name in names)]]
    rows += [[_method(c["method"]), *(_changed(c["figures"][name]) for name in names)] for c in contents]
    steps = "/".join(sorted({f"{c['training']['steps']:,}" for c in contents}))
    seeds = "/".join(sorted({str(c["provenance"]["config"]["seed"]) for c in contents}))
    policy = ", ".join(f"{key} {value}" for key, value in first["policy"].items() if key in ("fallback", "rollback"))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + (
        f"\n{first['task']['name']} {first['report']['split']}, {first['report']['examples']} examples; policy: "
        f"{first['policy']['name']}, {policy}; {steps} steps of alignment on "
        f"{first['outputs']['summary']['outputs']:,} outputs, one run each, seed {seeds}. ↑ and ↓: the "
        "95 % interval of the change over the rows (paired bootstrap) leaves out 0.\n"
    )


def _method(fields: dict[str, Any]) -> str:
    """The method of a result in a few words; neutral settings are left out."""
    words = [fields["method"]]
    if "divergence" in fields:
        words.append(fields["divergence"] + (f"({fields['beta']:g})" if "beta" in fields else ""))
        words += [f"temperature {fields['distill_temperature']:g}"] if fields["distill_temperature"] != 1 else []
        words += [f"top {fields['top_k']}"] if fields["top_k"] is not None else []
        words += [f"student {fields['student_fraction']:g}"] if fields["student_fraction"] > 0 else []
    return ", ".join(words)


def _changed(figure: dict[str, Any]) -> str:
    """The value after, and where it went."""
    low, high = figure["difference"]["low"], figure["difference"]["high"]
    sign = "" if low is None or low <= 0 <= high else " ↑" if low > 0 else " ↓"
    return f"{_number(figure['after'])}{sign}"


def _number(value: float | None, sign: str = "") -> str:
    """Null is where there was nothing to divide by."""
    return "–" if value is None else f"{value:{sign}.3f}"


def coverage_table(content: dict[str, Any]) -> str:
    """How often the promises of calibrations held, and below it on what."""
    from pipelines.calibration import tables

    rows = [tables.COVERAGE_TITLES, ["---", *["---:"] * (len(tables.COVERAGE_TITLES) - 1)]]
    rows += [tables.coverage_row(check) for check in content["checks"]]
    body = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    provenance = content["provenance"]
    return (
        f"{body}\n{content['fits']['task']}, {tables.drawn(content)}; delta {content['checks'][0]['delta']:g}; "
        f"{provenance['date'][:10]}, revision {provenance['git']['revision'][:7]}.\n"
    )


def benchmark_table(content: dict[str, Any]) -> str:
    """The table that the benchmark itself prints."""
    from benchmarks.table import markdown as table_of

    return table_of(content)


def _provenance(content: dict[str, Any]) -> str:
    task, run, provenance = content["task"], content["run"], content["provenance"]
    machine, versions = provenance["machine"], provenance["versions"]
    where = f"{machine['processor']}, {counted(machine['cores'], 'core')}, {counted(machine['threads'], 'thread')}"
    return (
        f"{task['name']} {task['split']}, {task['examples']} examples ({run['timed_examples']} timed, batch 1, both "
        f"encoders included); {where}; torch {versions['torch']}, transformers {versions['transformers']}; "
        f"{provenance['date'][:10]}, revision {provenance['git']['revision'][:7]}."
    )


if __name__ == "__main__":
    main()
