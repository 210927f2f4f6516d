"""Decode a split with a policy and with its baselines; print and write quality, speed and who wrote what.

python -m pipelines.evaluate bild.fallback=0.6
python -m pipelines.evaluate -m split=validation bild.fallback=0.5,0.6,0.7 bild.rollback=1,2,4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipelines.cli import UserError, check_whole, counted, entry
from pipelines.evaluation import sweep

if TYPE_CHECKING:
    from pipelines.evaluation.results import Result
    from pipelines.evaluation.timings import TimingLog

# Overrides that a result's name tells in another way, or that do not change the result.
TOLD_OTHERWISE = ("split", "large", "small", "task", "task.name", "bild", "bild.*", "out", "device")
HASH_DIGITS = 8  # of a hash in a name


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
    from pipelines.evaluation.run import Settings, describe_task, evaluate

    check(config)
    task = instantiated(config, "task")
    policy = instantiated(config, "bild")
    written = decoding(config, task, policy)
    dataset = task.load(config.split, config.limit)
    if len(dataset) == 0:
        raise UserError(f"task={task.name}: the split {config.split!r} has no rows; choose another split")
    pair = load_pair(config, task)
    sweep.say(f"task   {task.name}, {config.split} split, {counted(len(dataset), 'example')}")
    for role, model in pair.described.items():
        sweep.say(f"{role}  {model.note}")
    choice = chosen(config, pair, task, policy, written)
    config, policy = choice.config, choice.policy
    print("; ".join([f"policy {results.policy_label(policy)}", *choice.notes]))
    settings = Settings(
        batch_size=config.batch_size, latency_limit=config.latency_limit, cache=Path(config.out) / "cache"
    )
    try:
        done = evaluate(pair, task, dataset, policy, written, settings)
    except KeyboardInterrupt:
        print(f"stopped; texts and timings stay in {settings.cache}, and the same command continues there", flush=True)
        raise
    described = describe_task(task, dataset, config.split, config.limit)
    contents = {"task.data_files": described["data"]}
    contents |= {f"{role}.path": model.weights for role, model in pair.described.items()}
    names = {role: model.name for role, model in pair.described.items()}
    content = {
        "name": results.file_name(config.split, names, policy, extras(done.content["run"]["device"], contents)),
        "label": results.policy_label(policy),
        "promise": choice.promise,
        "task": described,
        **done.content,
        "provenance": provenance.collect(config),
    }
    result = results.write(content, done.rows, Path(config.out) / task.name)
    print(f"result {results.shown_path(result.path)}")
    return result, done.timing_log


def show(result: Result) -> None:
    """Print the tables of a result, write its report and print where it is."""
    from pipelines.evaluation import report, results, table

    table.print_tables([result])
    print(results.shown_path(report.write_report([result], report.report_path([result]))))


def check(config: DictConfig) -> None:
    """Raise ``UserError`` on numbers out of range, before anything is loaded."""
    check_whole("limit", config.limit, null="the whole split")
    check_whole("latency_limit", config.latency_limit, null="all of them")
    check_whole("batch_size", config.batch_size)


def extras(device: str, contents: Mapping[str, str], told: Sequence[str] = TOLD_OTHERWISE) -> dict[str, Any]:
    """What the user has set beyond task, split, models and policy, for the name of the result.

    Args:
        contents: keys whose values are paths, and the hash of what lies there, which stands in their place.
        told: patterns of keys that the name tells anyway.
    """
    from hydra.core.hydra_config import HydraConfig

    found: dict[str, Any] = {} if device == "cpu" else {"": device}
    if not HydraConfig.initialized():
        return found
    for override in HydraConfig.get().overrides.task:
        name, _, value = override.lstrip("+~").partition("=")
        path = next((path for path in contents if name == path or name.startswith(f"{path}.")), None)
        if path is not None:
            found[path] = contents[path][:HASH_DIGITS]
        elif not any(fnmatch(name, pattern) for pattern in told):
            found[name] = value
    return found


if __name__ == "__main__":
    entry("evaluate", main)
