"""Measure speed beside the peers: ``python -m benchmarks.latency MODE``, writes JSON, draws it, prints a table.

Modes: ``steps`` (step costs at the paper's shapes, random weights), ``pair`` (a trained pair as it is), ``inflate`` (a
trained pair with the same outputs at a bigger shape's cost), ``batch`` (throughput against batch size).
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks import options as command_line
from benchmarks import plots
from benchmarks.errors import UserError
from benchmarks.machine import provenance, read_bandwidth, say
from benchmarks.table import markdown


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one mode; bad input is one line and status 2."""
    content, out = measured(command_line.parser(), arguments)
    for one in content["skipped"]:
        say(f"left out: {one['name']} ({one['reason']})")
    plot = plots.draw(content, out.with_suffix(".svg"))
    say("left out: the plot (matplotlib is not installed; pip install .[bench])" if plot is None else f"drew {plot}")
    print(markdown(content))


def measured(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, module: str = "benchmarks.latency"
) -> tuple[dict[str, Any], Path]:
    """Run what the command line of ``module`` asks for. Returns what the JSON file holds, and where it is."""
    options = parser.parse_args(arguments)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        command_line.complete(options)
        bandwidth = read_bandwidth(torch.device(options.device), options.bandwidth_bytes)
        content = {"schema": 1, "kind": "benchmark", "mode": options.mode, "name": options.name}
        content["provenance"] = provenance(command_line.as_json(options), bandwidth, module)
        content |= options.run(options, bandwidth)
    except UserError as error:
        parser.error(" ".join(str(error).split()))
    content = write(content, options.out)
    say(f"wrote {options.out}")
    return content, options.out


def write(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Whole or not at all; lists of numbers stay on one line. Returns what the file holds: ``content``, rounded."""
    content = _rounded(content)
    text = json.dumps(content, indent=1, allow_nan=False)
    text = re.sub(r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    return content


def _rounded(value: Any) -> Any:
    """Six digits, more than any clock here is good for."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
