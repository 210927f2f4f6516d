"""Decode a split with a policy and with both baselines; print and write quality, speed and who wrote what.

python -m pipelines.evaluate bild.fallback=0.6
python -m pipelines.evaluate -m split=validation bild.fallback=0.5,0.6,0.7 bild.rollback=1,2,4
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pipelines.cli import UserError, entry

# Overrides that a result's name tells in another way, or that do not change the result.
TOLD_OTHERWISE = ("split", "large", "small", "task", "bild", "out", "device")


def main(config: DictConfig) -> None:
    """Evaluate one configuration; a job of a sweep leaves tables and report to the end of the sweep."""
    from pipelines.decoding.config import decoding, instantiated
    from pipelines.decoding.pair import load_pair
    from pipelines.evaluation import provenance, report, results, sweep, table
    from pipelines.evaluation.results import shown_path
    from pipelines.evaluation.run import Settings, describe_task, evaluate

    check(config)
    task = instantiated(config, "task")
    policy = instantiated(config, "bild")
    written = decoding(config, task, policy)
    dataset = task.load(config.split, config.limit)
    if len(dataset) == 0:
        raise UserError(f"task={task.name}: the split {config.split!r} has no rows; choose another split")
    pair = load_pair(config, task.name)
    if sweep.job_number() == 0:
        print(f"task   {task.name}, {config.split} split, {len(dataset):,} examples")
        for role, model in pair.described.items():
            print(f"{role}  {model.note}")
    print(f"policy {results.policy_label(policy)}")
    settings = Settings(
        batch_size=config.batch_size, latency_limit=config.latency_limit, cache=Path(config.out) / "cache"
    )
    done = evaluate(pair, task, dataset, policy, written, settings)
    names = {role: model.name for role, model in pair.described.items()}
    content = {
        "name": results.file_name(config.split, names, policy, extras(done.content["run"]["device"])),
        "label": results.policy_label(policy),
        "task": describe_task(task, dataset, config.split, config.limit),
        **done.content,
        "provenance": provenance.collect(config),
    }
    result = results.write(content, done.rows, Path(config.out) / task.name)
    if sweep.is_sweep():
        sweep.leave_result(result.path, done.timing_log)
        print(f"result {shown_path(result.path)}")
        return
    done.timing_log.unlink(missing_ok=True)
    table.print_tables([result])
    print(f"result {shown_path(result.path)}")
    print(shown_path(report.write_report([result], report.report_path([result]))))


def check(config: DictConfig) -> None:
    """Raise ``UserError`` on numbers out of range, before anything is loaded."""
    for name in ("limit", "latency_limit", "batch_size"):
        value = config[name]
        optional = name != "batch_size"
        if value is None and optional:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            hint = "a whole number of at least 1" + (", or null for the whole split" if optional else "")
            raise UserError(f"{name}={value}: must be {hint}")


def extras(device: str) -> dict[str, Any]:
    """What the user has set beyond task, split, models and policy, for the name of the result."""
    from hydra.core.hydra_config import HydraConfig

    found: dict[str, Any] = {} if device == "cpu" else {"": device}
    if HydraConfig.initialized():
        overrides = (override.partition("=") for override in HydraConfig.get().overrides.task)
        for name, _, value in overrides:
            if name.lstrip("+~").split(".")[0] not in TOLD_OTHERWISE:
                found[name.lstrip("+~")] = value
    return found


if __name__ == "__main__":
    entry("evaluate", main)
