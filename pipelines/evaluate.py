"""Decode a split with a policy and with its baselines; print and write quality, speed and who wrote what.

python -m pipelines.evaluate bild.fallback=0.6
python -m pipelines.evaluate -m split=validation bild.fallback=0.5,0.6,0.7 bild.rollback=1,2,4
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from pipelines.cli import entry
from pipelines.evaluation import sweep
from pipelines.evaluation.command import check, introduce, load_rows, naming, settings_of

if TYPE_CHECKING:
    from pipelines.evaluation.results import Result
    from pipelines.evaluation.timings import TimingLog


def main(config: DictConfig) -> None:
    """Evaluate one configuration; a job of a sweep leaves tables and report to the end of the sweep."""
    with sweep.job():
        result, timing_log = evaluated(config)
        if sweep.is_sweep():
            sweep.leave_result(result.path, timing_log.folder)
        else:
            show(result)
            timing_log.remove()


def evaluated(config: DictConfig) -> tuple[Result, TimingLog]:
    """Run and write one evaluation; returns also the log to be removed once its result is not needed to resume."""
    from pipelines.decoding.calibrated import chosen
    from pipelines.decoding.config import decoding, instantiated
    from pipelines.decoding.pair import load_pair
    from pipelines.evaluation import provenance, results
    from pipelines.evaluation.run import describe_task, evaluate

    check(config)
    task = instantiated(config, "task")
    policy = instantiated(config, "bild")
    written = decoding(config, task, policy)
    made = provenance.collect(config)
    dataset = load_rows(config, task)
    pair = load_pair(config, task)
    introduce(config, task, dataset, pair, sweep.say)
    choice = chosen(config, pair, task, policy, written)
    config, policy = choice.config, choice.policy
    print("; ".join([f"policy {results.policy_label(policy)}", *choice.notes]))
    settings = settings_of(config)
    try:
        done = evaluate(pair, task, dataset, policy, written, settings)
    except KeyboardInterrupt:
        print(f"stopped; texts and timings stay in {settings.cache}, and the same command continues there", flush=True)
        raise
    described = describe_task(task, dataset, config.split, config.limit)
    names, extra = naming(pair, described["data"], done.content["run"]["device"])
    content = {
        "name": results.file_name(config.split, names, policy, extra),
        "label": results.policy_label(policy),
        "promise": choice.promise,
        "task": described,
        **done.content,
        "provenance": {**made, "config": provenance.resolved(config)},
    }
    result = results.write(content, done.rows, Path(config.out) / task.name)
    print(f"result {results.shown_path(result.path)}")
    return result, done.timing_log


def show(result: Result) -> None:
    """Print the tables of a result, write its report and print where it is."""
    from pipelines.evaluation import report, results, table

    table.print_tables([result])
    print(results.shown_path(report.write_report([result], report.report_path([result]))))


if __name__ == "__main__":
    entry("evaluate", main)
