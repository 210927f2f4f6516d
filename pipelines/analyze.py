"""Take a pair's speed apart: agreement of the models, step costs, theory beside the clock, ablations.

python -m pipelines.analyze
python -m pipelines.analyze limit=100 do_sample=true
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipelines.cli import UserError, entry
from pipelines.evaluation.command import check, introduce, load_rows, naming, settings_of

# Overrides that a result's name tells in another way, or that do not change the result.
TOLD_OTHERWISE = ("large", "small", "task", "task.name", "bild", "out", "device")


def main(config: DictConfig) -> None:
    """Run, print the tables, write result and report."""
    # Heavy, and not needed to say that a key is misspelt.
    from pipelines.analysis import report, result, tables
    from pipelines.analysis.run import Analysis
    from pipelines.analysis.settings import systems
    from pipelines.decoding.config import decoding, instantiated
    from pipelines.decoding.pair import load_pair
    from pipelines.evaluation import provenance
    from pipelines.evaluation.results import policy_fields, shown_path
    from pipelines.evaluation.run import describe_task

    check(config)
    task, policy, asked = (instantiated(config, node) for node in ("task", "bild", "analysis"))
    planned = systems(asked, policy)
    if config.small.get("shortlist"):
        raise UserError("small.shortlist=true: an analysis compares whole distributions; set it to false")
    written = decoding(config, task, policy)
    made = provenance.collect(config)
    dataset = load_rows(config, task)
    pair = load_pair(config, task)
    introduce(config, task, dataset, pair)
    settings = settings_of(config)
    try:
        done = Analysis(pair, task, dataset, written, settings).run(planned, asked)
    except KeyboardInterrupt:
        print(f"stopped; what was done stays in {settings.cache}, and the same command continues there", flush=True)
        raise
    described = describe_task(task, dataset, config.split, config.limit)
    names, extra = naming(pair, described["data"], done.content["run"]["device"], TOLD_OTHERWISE)
    content = {
        "name": result.file_name(names, extra),
        "task": described,
        "policy": policy_fields(policy),
        **done.content,
        "provenance": made,
    }
    path = result.write(content, Path(config.out) / task.name)
    print(f"result {shown_path(path)}\n")
    tables.print_all(content)
    print(report.verdict(content))
    if tables.series(content, "mixing"):
        print(report.mixing_words(content))
    print(shown_path(report.write_report(content, path.with_suffix(".html"))))
    done.timing_log.remove()


if __name__ == "__main__":
    entry("analyze", main)
