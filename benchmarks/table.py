"""Results as Markdown tables: ``python -m benchmarks.table FILE...``. The numbers come from the files alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTHING = "–"
TOOLS = ("torch", "transformers", "ctranslate2")
HARD_PEERS = ("transformers assisted", "CTranslate2 int8")
CTRANSLATE2 = ("CTranslate2 float32", "CTranslate2 int8")


def main() -> None:
    """Print the table of every file; bad input is one line and status 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            sys.exit(_refuse(f"{path}: cannot be read ({error}); give a JSON file of benchmarks.latency"))
        if not isinstance(content, dict) or content.get("kind") != "benchmark":
            sys.exit(_refuse(f"{path}: not a result of benchmarks.latency; give a JSON file that it wrote"))
        print(markdown(content))


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def markdown(content: dict[str, Any]) -> str:
    """The table of one result, and below it what was measured and where."""
    make = {"steps": _steps, "pair": _pair, "inflate": _pair, "batch": _batch, "rounding": _rounding}[content["mode"]]
    titles, rows = make(content)
    return f"{_layout(titles, rows)}\n{_footer(content)}\n"


def _steps(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    others = [content["baseline"], *CTRANSLATE2]
    titles = ["shape", "method", "ms per token", *(f"over {other}" for other in others)]
    titles += ["ms per step", "8 tokens / 1", "of the limit", "fixed"]
    ids = content["provenance"]["config"].get("shortlist")  # older results know none
    titles += [] if ids is None else [f"ms with {ids:,} ids", "times as fast"]
    rows = []
    for name, shape in content["shapes"].items():
        engines = {f"large alone, {engine['engine']}": engine for engine in shape["engines"]}
        for method in shape["methods"]:
            engine = engines.get(method["method"], {})
            row = [name, method["method"].removeprefix("large alone, "), number(method["ms"], 2)]
            row += [number(method["speedup_over"].get(other), 2, "x") for other in others]
            row += [number(engine.get("ms"), 2), number(engine.get("verify_over_step"), 2)]
            share = engine.get("share_of_limit", method["share_of_limit"])
            row += [percent(share), percent(engine.get("fixed_share"))]
            if ids is not None:
                short = engine.get("shortlist", {})
                row += [number(short.get("ms"), 2), number(short.get("whole_head_over_shortlist"), 2, "x")]
            rows.append(row)
    return titles, rows


def _pair(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    others = [name for name in HARD_PEERS if name in content["methods"][0]["decode_only_speedup_over"]]
    titles = ["method", "median ms", "p90 ms", "tokens/s", "speedup", "decoding alone"]
    titles += [*(f"over {other}" for other in others), "same", "BLEU", "tokens per large step", "outside the models"]
    rows = []
    for method in content["methods"]:
        ends = method["end_to_end"]
        row = [method["method"], number(ends["median_ms"], 1), number(ends["p90_ms"], 1)]
        row += [number(ends["tokens_per_second"], 1), factor(ends["speedup"]), factor(method["decode_only"]["speedup"])]
        row += [number(method["decode_only_speedup_over"].get(other, 1.0), 2, "x") for other in others]
        row += [percent(method["exact"]), number(method["bleu"], 2), number(method.get("mean_accepted_length"), 2)]
        rows.append([*row, percent(method.get("outside_models"))])
    return titles, rows


def _batch(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    sizes = sorted({point["batch_size"] for point in content["points"]})
    methods = list(dict.fromkeys(point["method"] for point in content["points"]))
    found = {(point["method"], point["batch_size"]): point for point in content["points"]}
    rows = []
    for method in methods:
        points = [found[method, size] for size in sizes]
        rows.append([method, *(f"{one['tokens_per_second']:.1f} ({one['speedup']['value']:.2f}x)" for one in points)])
    return ["tokens/s (speedup) at batch size", *map(str, sizes)], rows


def _rounding(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    titles = ["engine"]
    for role in ("large", "small"):
        titles += [f"BLEU, {role} alone", f"same choice as float32, {role}"]
    sizes = [one["batch_size"] for one in content["engines"][0]["lossless"]]
    titles += [f"lossless texts unlike the large model's, {_in_batches(size)}" for size in sizes]
    rows = []
    for engine in content["engines"]:
        row = [engine["engine"]]
        for role in ("large", "small"):
            choice = engine["same_choice"][role]
            row += [number(engine["bleu"][role], 2), f"{100 * choice['same'] / choice['positions']:.2f} %"]
        rows.append([*row, *(str(one["differ"]) for one in engine["lossless"])])
    return titles, rows


def _in_batches(size: int) -> str:
    return "one by one" if size == 1 else f"in batches of {size}"


def _footer(content: dict[str, Any]) -> str:
    provenance, config = content["provenance"], content["provenance"]["config"]
    machine, versions = provenance["machine"], provenance["versions"]
    where = f"{machine['processor']}, {_counted(machine['cores'], 'core')}, {_counted(machine['threads'], 'thread')}"
    where = where if config["device"] == "cpu" else machine["accelerator"]
    if content["mode"] == "steps":
        what = (
            f"random weights, batch 1, source of {config['source_length']} tokens, decoding only; reads "
            f"{machine['bandwidth_gb_per_s']:.1f} GB/s"
        )
    else:
        what = "; ".join(_model_fact(role, content[role]) for role in ("large", "small"))
        what += f"; {_counted(content['data']['rows'], 'row')} of {content['data']['path']}"
    tools = ", ".join(f"{name} {versions[name]}" for name in TOOLS if versions[name] is not None)
    when = f"{provenance['date'][:10]}, revision {str(provenance['git']['revision'])[:7]}"
    medians = f", medians of {_counted(config['runs'], 'run')}" if "runs" in config else ""
    return f"{what}; {config['dtype']}{medians}; {where}; {tools}; {when}."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _model_fact(role: str, model: dict[str, Any]) -> str:
    inflated = "" if model["inflated_from"] is None else ", inflated"
    return f"{role}: {model['path']}{inflated} ({model['parameters'] / 1e6:,.1f} M parameters)"


def _layout(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded, so that the text reads as a table in a terminal too; numbers to the right."""
    widths = [max(len(row[place]) for row in (titles, *rows)) for place in range(len(titles))]
    left = [all(not cell[:1].isdigit() and cell != NOTHING for cell in column) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(cells, widths, left, strict=True)
        ]
        return f"| {' | '.join(padded)} |\n"

    rule = [("-" * width) if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]
    return line(titles) + line(rule) + "".join(map(line, rows))


def number(value: float | None, digits: int, unit: str = "") -> str:
    """A number with so many digits behind the point."""
    return NOTHING if value is None else f"{value:,.{digits}f}{unit}"


def percent(share: float | None) -> str:
    """A share of 1 in percent."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def factor(speedup: dict[str, Any]) -> str:
    """A factor, with its interval unless that is a point."""
    if speedup["low"] == speedup["high"]:
        return f"{speedup['value']:.2f}x"
    return f"{speedup['value']:.2f}x ({speedup['low']:.2f}–{speedup['high']:.2f})"


if __name__ == "__main__":
    main()
