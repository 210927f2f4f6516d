"""Find the fastest policy whose quality loss against the large model stays within a bound, and say what is promised.

python -m pipelines.calibrate max_drop=0.1 delta=0.1
python -m pipelines.calibrate risk=corpus max_drop=1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from pipelines.cli import UserError, check_whole, entry
from pipelines.evaluation import command

if TYPE_CHECKING:
    from pipelines.calibration.parts import CalibrationParts

PATIENCE = 10  # seconds in which another calibration has surely written its few files


def main(config: DictConfig) -> None:
    """Calibrate a pair, or show how often the promise of a calibration holds (``coverage.resplits``)."""
    check(config)
    from pipelines.calibration.parts import assemble

    parts = assemble(config)
    try:
        if config.coverage.resplits is None:
            calibrated(config, parts)
        else:
            covered(config, parts)
    except KeyboardInterrupt:
        print(f"stopped; texts and timings stay in {parts.settings.cache}, and the same command goes on", flush=True)
        raise


def check(config: DictConfig) -> None:
    """Raise ``UserError`` on numbers out of range, before anything is loaded."""
    command.check(config)
    check_whole("coverage.resplits", config.coverage.resplits, null="a calibration")
    for key in ("delta", "max_drop", "selection_share"):
        if not isinstance(config[key], (int, float)) or isinstance(config[key], bool):
            raise UserError(f"{key}={config[key]}: must be a number")
    if config.do_sample:
        raise UserError("do_sample=true: texts of two samples cannot be compared; calibrate with do_sample=false")


def calibrated(config: DictConfig, parts: CalibrationParts) -> None:
    """Calibrate; the outcome goes beside the pair, where evaluate and generate find it, and to ``out``."""
    from pipelines.calibration import record, tables
    from pipelines.calibration.run import calibrate
    from pipelines.decoding.calibrated import place
    from pipelines.evaluation.run import describe_task
    from pipelines.evaluation.table import disturbance
    from pipelines.files import sole_writer

    done = calibrate(
        parts.pair,
        parts.task,
        parts.dataset,
        parts.points,
        parts.decoding,
        parts.settings,
        parts.wanted,
        config.selection_share,
        parts.spent,
    )
    described = describe_task(parts.task, parts.dataset, config.split, config.limit)
    policy_file = place(parts.pair, parts.task.name)
    with sole_writer(policy_file.parent, patience=PATIENCE):  # of two at once the second counts the first's promise
        content = record.calibration(config, parts, described, done.content, policy_file)
        file = record.file(config, content["name"])
        record.write(content, file, policy_file)
    for log in done.timing_logs:
        log.remove()
    tables.print_curve(content)
    print(f"policy {content['label']}\n{tables.speed(content)}\n{content['promise']['statement']}")
    if told := disturbance(content):
        print(told)
    print(f"{file}\n{policy_file}")


def covered(config: DictConfig, parts: CalibrationParts) -> None:
    """Show coverage; the outcome goes to ``out``."""
    from pipelines.calibration import record, tables
    from pipelines.calibration.study import study

    done = study(config, parts)
    content = record.coverage(parts, done.content)
    file = record.file(config, content["name"])
    record.write(content, file)
    done.timing_log.remove()
    tables.print_coverage(content)
    print(file)


if __name__ == "__main__":
    entry("calibrate", main)
