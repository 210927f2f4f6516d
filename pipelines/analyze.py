"""Take a pair's speed apart: agreement of the models, step costs, theory beside the clock, ablations.

python -m pipelines.analyze
python -m pipelines.analyze limit=100 do_sample=true
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipelines.cli import UserError, counted, entry

# Overrides that a result's name tells in another way, or that do not change the result.
TOLD_OTHERWISE = ("large", "small", "task", "task.name", "bild", "out", "device")


def main(config: DictConfig) -> None:
    """Run, print the tables, write result and report."""
    # Heavy, and not needed to say that a key is misspelt.
    from bild.sources.base import DraftSource
    from pipelines.analysis import report, result, tables
    from pipelines.analysis.run import Analysis
    from pipelines.analysis.settings import systems
    from pipelines.decoding.config import decoding, instantiated
    from pipelines.decoding.pair import load_pair
    from pipelines.evaluate import check, extras
    from pipelines.evaluation import provenance
    from pipelines.evaluation.results import policy_fields, shown_path
    from pipelines.evaluation.run import Settings, describe_task

    check(config)
    task, policy, asked = (instantiated(config, node) for node in ("task", "bild", "analysis"))
    planned = systems(asked, policy)
    if config.small.get("shortlist"):
        raise UserError("small.shortlist=true: an analysis compares whole distributions; set it to false")
    written = decoding(config, task, policy)
    dataset = task.load(config.split, config.limit)
    if len(dataset) == 0:
        raise UserError(f"task={task.name}: the split {config.split!r} has no rows; choose another split")
    pair = load_pair(config, task)
    if isinstance(pair.small, DraftSource):
        raise UserError(f"small={pair.described['small'].name}: an analysis compares two models; choose a small model")
    print(f"task   {task.name}, {config.split} split, {counted(len(dataset), 'example')}")
    for role, model in pair.described.items():
        print(f"{role}  {model.note}")
    settings = Settings(
        batch_size=config.batch_size, latency_limit=config.latency_limit, cache=Path(config.out) / "cache"
    )
    try:
        done = Analysis(pair, task, dataset, written, settings).run(planned, asked)
    except KeyboardInterrupt:
        print(f"stopped; what was done stays in {settings.cache}, and the same command continues there", flush=True)
        raise
    described = describe_task(task, dataset, config.split, config.limit)
    contents = {"task.data_files": described["data"]}
    contents |= {f"{role}.path": model.weights for role, model in pair.described.items()}
    names = {role: model.name for role, model in pair.described.items()}
    content = {
        "name": result.file_name(names, extras(done.content["run"]["device"], contents, TOLD_OTHERWISE)),
        "task": described,
        "policy": policy_fields(policy),
        **done.content,
        "provenance": provenance.collect(config),
    }
    path = result.write(content, Path(config.out) / task.name)
    print(f"result {shown_path(path)}\n")
    tables.print_all(content)
    print(report.verdict(content))
    print(report.mixing_words(content))
    print(shown_path(report.write_report(content, path.with_suffix(".html"))))
    done.timing_log.remove()


if __name__ == "__main__":
    entry("analyze", main)
