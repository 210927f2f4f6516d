"""Draw the quality-latency plane: every system on one pair, greedy and sampled, beside each model alone.

python -m pipelines.compare limit=200
python -m pipelines.compare task=multi30k systems.cascade_diff=null
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from pipelines.cli import UserError, check_whole, entry
from pipelines.evaluation.command import check, introduce, load_rows, naming, settings_of


def main(config: DictConfig) -> None:
    """Measure, print the tables, write result, picture and report."""
    # Heavy, and not needed to say that a key is misspelt.
    import bild
    from pipelines.comparison import result, tables
    from pipelines.comparison.run import compare
    from pipelines.comparison.systems import points
    from pipelines.decoding.config import decoding, instantiated
    from pipelines.decoding.pair import load_pair
    from pipelines.evaluation import provenance
    from pipelines.evaluation.results import shown_path
    from pipelines.evaluation.run import describe_task
    from pipelines.evaluation.table import disturbance

    check(config)
    check_whole("seeds", config.seeds)
    temperatures = checked_temperatures(config.temperatures)
    task = instantiated(config, "task")
    chosen = points(config.systems)
    # Each temperature sets its own of these two.
    written = decoding(OmegaConf.merge({"do_sample": True, "temperature": 1.0}, config), task, bild.LargeOnly())
    made = provenance.collect(config)
    dataset = load_rows(config, task)
    pair = load_pair(config, task)
    introduce(config, task, dataset, pair)
    settings = replace(settings_of(config), seeds=config.seeds)
    try:
        done = compare(pair, task, dataset, chosen, written, temperatures, settings)
    except KeyboardInterrupt:
        print(f"stopped; what was done stays in {settings.cache}, and the same command continues there", flush=True)
        raise
    described = describe_task(task, dataset, config.split, config.limit)
    names, extra = naming(pair, described["data"], done.content["panels"][0]["run"]["device"])
    content = {
        "name": result.file_name(config.split, names, extra),
        "task": described,
        **done.content,
        "provenance": made,
    }
    path = result.write(content, Path(config.out) / task.name)
    tables.print_all(content)
    for panel in content["panels"]:
        if told := disturbance(panel):
            print(f"{tables.heading(panel)}: {told}")
    print(f"result {shown_path(path)}\n{shown_path(path.with_suffix('.html'))}")
    for log in done.timing_logs:
        log.remove()


def checked_temperatures(values: object) -> list[float]:
    """The list of the config; raises ``UserError`` unless it holds numbers from 0 up."""
    fine = isinstance(values, ListConfig) and len(values) > 0
    if not fine or not all(_is_number(one) and 0 <= one < math.inf for one in values):
        raise UserError(f"temperatures={values}: give a list of numbers from 0 (greedy) up, such as [0.0, 1.0]")
    return [float(one) for one in dict.fromkeys(values)]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


if __name__ == "__main__":
    entry("compare", main)
