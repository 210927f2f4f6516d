"""Throughput against batch size: the same rows, so many at a time."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import figures
from benchmarks.machine import say
from benchmarks.methods import BASELINE
from benchmarks.pair import build_methods, load
from benchmarks.timing import take_turns


def run_batch(options: argparse.Namespace, _bandwidth: float) -> dict[str, Any]:
    """Tokens a second of every method at every batch size, and the ratio to transformers generate at the same one."""
    pair = load(options)
    methods, skipped = build_methods(pair, options, alone=False)
    points = []
    for size in options.batch_sizes:
        say(f"batch size {size}")
        outputs, times = take_turns(
            methods, pair.batches(size), max_new_tokens=options.max_new_tokens, runs=options.runs, say=say
        )
        rows = {name: [row for one in decoded for row in one.tokens] for name, decoded in outputs.items()}
        for name, own in times.items():
            tokens = sum(map(len, rows[name]))
            points.append(
                {
                    "method": name,
                    "batch_size": size,
                    "tokens": tokens,
                    "tokens_per_second": figures.time_figures(own.total, times[BASELINE].total, tokens)[
                        "tokens_per_second"
                    ],
                    "speedup": figures.speedup(own.total, times[BASELINE].total),
                    "decode_only_speedup": figures.speedup(own.decoding, times[BASELINE].decoding),
                    "exact": figures.share_identical(rows[name], rows[BASELINE]),
                    "seconds": own.total.sum(-1).round(4).tolist(),
                }
            )
    return {**pair.description, "baseline": BASELINE, "skipped": skipped, "points": points}
