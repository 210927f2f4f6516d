"""Results to one HTML file that needs no network and no explanation. Everything comes from the files of the results.

Knows the schema of results and the page's template; knows nothing about models or tokenizers.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from pipelines.cli import counted
from pipelines.decoding.scoring import HEADLINE, MEANINGS
from pipelines.evaluation import plots, table
from pipelines.evaluation.latency import chosen_rows
from pipelines.evaluation.results import Result, read_rows
from pipelines.files import write_text

EXAMPLES = 20
TOLERANCE = 1.0  # points of quality that the shown policy of a sweep may lose, as in the paper's second rows
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Token:
    """One coloured piece of text of the report."""

    space: str
    """white space before it, which carries no colour"""
    text: str
    reason: str
    tip: str


def write_report(results: Sequence[Result], path: Path) -> Path:
    """Write the report of some results, one section per group that can be compared.

    Raises:
        UserError: the examples of a result that shows them cannot be read.
    """
    template = page_template(Path(__file__).parent, "report.html.j2")
    groups = table.groups(results)
    sections = [_section(group, told) for group, told in zip(groups, table.distinctions(groups), strict=True)]
    html = template.render(sections=sections, colours=plots.COLOURS)
    write_text(html, path)
    return path


def page_template(folder: Path, name: str) -> Template:
    """A template in ``folder`` that may extend ``page.html.j2`` and use what else lies beside it here."""
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(name)


def report_path(results: Sequence[Result]) -> Path:
    """Beside the results: ``{name}.html`` for one; for several ``{folder}.html``, after the folder that they share."""
    folder = _shared_folder(results)
    return folder / f"{results[0].path.stem if len(results) == 1 else folder.name}.html"


def sweep_path(results: Sequence[Result]) -> Path:
    """Beside the results of a sweep: what all of their names say, and "-sweep"."""
    names = [result.path.stem.split("-") for result in results]
    common = [words[0] for words in zip(*names, strict=False) if len(set(words)) == 1]
    return _shared_folder(results) / f"{'-'.join([*common, 'sweep'])}.html"


def shown_result(results: Sequence[Result]) -> Result:
    """The result whose examples are shown: the fastest that loses at most ``TOLERANCE`` points, else the best."""
    fine = [result for result in results if _lost(result) <= TOLERANCE]
    if fine:
        return max(fine, key=lambda result: result.method("policy")["latency"]["speedup"]["value"])
    return min(results, key=_lost)


def tokens(trace: Sequence[dict[str, Any]]) -> list[Token]:
    """The trace of a text as it is read: spaces apart, the bytes of one character together, the end as a mark."""
    found: list[Token] = []
    index = 0
    while index < len(trace):
        entry = trace[index]
        count = _byte_run(trace, index)
        text = _bytes_text(trace[index : index + count]) if count else _visible(entry["piece"])
        stripped = text.lstrip(" ")
        found.append(Token(text[: len(text) - len(stripped)], stripped, entry["reason"], _tip(entry)))
        index += max(count, 1)
    return found


def _shared_folder(results: Sequence[Result]) -> Path:
    return Path(os.path.commonpath([result.path.absolute().parent for result in results]))


def _section(group: Sequence[Result], differs: str) -> dict[str, Any]:
    """What the template shows of one group of comparable results, which ``differs`` from the others in this."""
    shown = shown_result(group)
    rows = read_rows(shown)
    task = shown.content["task"]
    several = len(group) > 1
    shown_lines = table.lines(group)
    entries = [line.entry for line in shown_lines]
    marked = [index for index, line in enumerate(shown_lines) if line.is_policy and line.result.path == shown.path]
    return {
        "task": task,
        "differs": differs,
        "content": shown.content,
        "headline": _headline(shown),
        "summary": shown.method("policy").get("summary", ""),  # older results do not tell
        "facts": common_facts(shown.content),
        "several": several,
        "count": len(group),
        "main": cells(table.of_runs(table.main_columns(task["metric"]), group), entries, marked),
        "details": cells(table.of_runs(table.detail_columns(entries), group), entries, marked),
        "quality_latency": Markup(plots.quality_latency(group)) if several else None,
        "distribution": Markup(plots.latency_distribution(_milliseconds(shown, rows))),
        "reasons": _reasons(shown.content["methods"]),
        "who_wrote": Markup(plots.who_wrote(shown.content["methods"])),
        "examples": _examples(shown, rows),
        "notes": _notes(shown),
        "config": yaml.safe_dump(shown.content["provenance"]["config"], sort_keys=False, allow_unicode=True),
    }


def _reasons(methods: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Why a token was written or thrown away, of those reasons that occur."""
    return {
        reason: words
        for reason, words in plots.REASONS.items()
        if any(entry["written_by"][reason] > 0 for entry in methods)
    }


def cells(columns: Sequence[table.Column], entries: Sequence[Any], marked: Sequence[int] = ()) -> dict[str, Any]:
    """A table as the template takes it; the lines at the ``marked`` indices stand out."""
    rows = [
        {"cells": [column.read(entry) for column in columns], "is_shown": index in marked}
        for index, entry in enumerate(entries)
    ]
    return {"columns": columns, "rows": rows}


def _headline(result: Result) -> str:
    """The result in one sentence."""
    large, ours = result.method("large"), result.method("policy")
    title = table.METRIC_TITLES[HEADLINE[result.content["task"]["metric"]]]
    factor = ours["latency"]["speedup"]
    return (
        f"{ours['label']}: {factor['value']:.2f} times as fast as the large model alone "
        f"(95 % interval {factor['low']:.2f} to {factor['high']:.2f}), "
        f"{title} {ours['quality']['score']:.2f} against {large['quality']['score']:.2f}; "
        f"the large model wrote {table.percent(ours['rates']['large_share'])} of the tokens."
    )


def common_facts(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what a reader must know to place the numbers of a result."""
    provenance = content["provenance"]
    task, run, models = content["task"], content["run"], content["models"]
    limit = "" if task["limit"] is None else f" (limit={task['limit']})"
    return [
        ("task", f"{task['name']}, {task['split']} split, {counted(task['examples'], 'example')}{limit}"),
        *((role, _model_fact(model)) for role, model in models.items()),
        ("timed", _timing_fact(run, models["large"]["dtype"])),
        ("machine", _machine_fact(provenance["machine"], run["device"])),
        ("commit", _commit_fact(provenance["git"])),
        ("date", provenance["date"]),
        ("command", provenance["command"]),
    ]


def _timing_fact(run: dict[str, Any], dtype: str) -> str:
    timed = f"{counted(run['timed_examples'], 'example')}, one at a time, {dtype} on {run['device']}"
    # Older results do not tell.
    processes = run.get("timing_processes", 1)
    return timed if processes == 1 else f"{timed}, by {processes} processes, one after the other: it was interrupted"


def _model_fact(model: dict[str, Any]) -> str:
    if model["path"] is None:  # nothing that has weights
        return model["note"]
    return f"{model['name']}, {model['parameters'] / 1e6:.1f} M parameters, from {model['path']}"


def _machine_fact(machine: dict[str, Any], device: str) -> str:
    if device == "cuda":
        return machine["accelerator"]
    return f"{machine['processor']}, {counted(machine['threads'], 'thread')}"


def _commit_fact(git: dict[str, Any]) -> str:
    if git["revision"] is None:
        return "not a clone"
    return git["revision"][:12] + (" with local changes" if git["changed"] else "")


def _notes(result: Result) -> list[str]:
    """What a careful reader would ask."""
    content, task = result.content, result.content["task"]
    ours = result.method("policy")
    unlike, timed = ours["latency"]["unlike_batched"], ours["latency"]["examples"]
    c, predicted = content["cost_ratio"], ours["predicted_speedup"]
    difference = ours["quality"]["difference_to_large"]
    notes = [
        f"Quality: {MEANINGS[task['metric']]}. Whoever compares with other numbers needs the same signature: "
        f"{ours['quality']['signature']}.",
        f"Difference of quality to the large model alone, with its 95 % interval: {difference['value']:+.2f} "
        f"({difference['low']:+.2f} to {difference['high']:+.2f}).",
        f"Quality is measured on texts written in batches of {content['run']['batch_size']}, time one example at a "
        f"time; {timed - unlike} of {timed} timed texts are token for token the scored ones.",
    ]
    # Older results do not tell.
    if shortened := content["run"].get("shortened", 0):
        how = "cut at" if task.get("prompt") is None else "had examples left out of their prompts, to keep within"
        notes.append(f"{counted(shortened, 'source')} {how} {task['source_length']} tokens.")
    if c is not None and predicted is not None:
        notes.append(
            f"One step of the small model costs {c:.2f} steps of the large one; by that and the number of steps alone, "
            f"decoding would be {predicted:.2f} times as fast."
        )
    if (told := table.disturbance(content)) is not None:
        notes.append(f"This run was {told}.")
    if ours["rates"]["cut_off"] > 0:
        notes.append(
            f"{table.percent(ours['rates']['cut_off'])} of the texts were cut off at "
            f"{content['decoding']['max_new_tokens']} tokens."
        )
    return notes


def _milliseconds(result: Result, rows: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Times of the timed examples by the method's label."""
    return {
        entry["label"]: [
            row["milliseconds"] for row in rows if row["method"] == entry["method"] and row["milliseconds"] is not None
        ]
        for entry in result.content["methods"]
    }


def _examples(result: Result, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Examples spread evenly over the timed ones: not picked by what they show."""
    method = result.method("policy")["method"]
    by_method: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["row"]] = row
    timed = sorted(index for index, row in by_method[method].items() if row["milliseconds"] is not None)
    examples = []
    for place in chosen_rows(len(timed), EXAMPLES):
        large, ours = by_method["large"][timed[place]], by_method[method][timed[place]]
        examples.append(
            {
                "ours": ours,
                "large": large,
                "small": by_method["small"][timed[place]] if "small" in by_method else None,
                "tokens": tokens(ours["trace"]),
                "factor": large["milliseconds"] / ours["milliseconds"],
            }
        )
    return examples


def _lost(result: Result) -> float:
    return result.method("large")["quality"]["score"] - result.method("policy")["quality"]["score"]


def _tip(entry: dict[str, Any]) -> str:
    confidence = entry["confidence"]
    known = confidence is not None and not math.isnan(confidence)
    sure = f"confidence {100 * confidence:.0f} %" if known else "confidence unknown"
    return f"{plots.REASONS[entry['reason']]} · {sure} · round {entry['round'] + 1}"


def _visible(piece: str) -> str:
    """Special tokens as marks: they are part of what was written, but not of the text."""
    return {"</s>": " ∎", "\n": "⏎"}.get(piece, piece)


def _byte_run(trace: Sequence[dict[str, Any]], start: int) -> int:
    """How many entries from ``start`` on are bytes that one writer wrote for one reason."""
    end = start
    while end < len(trace) and _BYTE.fullmatch(trace[end]["piece"]) and trace[end]["reason"] == trace[start]["reason"]:
        end += 1
    return end - start


def _bytes_text(trace: Sequence[dict[str, Any]]) -> str:
    data = bytes(int(_BYTE.fullmatch(entry["piece"])[1], 16) for entry in trace)
    return data.decode(errors="replace")
