"""The comparison of an alignment: made, shown, and written as JSON beside the weights and among the results.

Sections of the JSON: ``name``; ``task``; ``models`` (large, before, after); ``policy``; ``outputs`` of the large model
(folder, summary, identity); ``method`` (its name, and of distill its settings); ``training`` (steps, best validation
score, which is against such outputs); ``report`` (split, examples, the large model's own score); ``figures`` (name ->
label, before, after, difference with value, low and high; null where there was nothing to divide by); ``provenance``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from omegaconf import DictConfig

from pipelines.alignment.comparison import as_json
from pipelines.alignment.parts import AlignmentParts
from pipelines.alignment.report import show
from pipelines.alignment.run import Outputs, compare, examples
from pipelines.cli import counted
from pipelines.decoding.pair import Pair, describe
from pipelines.decoding.scoring import HEADLINE
from pipelines.evaluation.results import policy_fields, policy_label
from pipelines.evaluation.run import describe_task
from pipelines.files import write_json
from pipelines.training.run import TrainSummary

SCHEMA = 1
KIND = "alignment"
IN_CHECKPOINT = "alignment.json"
TRAINING = ("steps", "max_steps", "metric", "best", "best_step", "seconds")


def result_name(config: DictConfig, parts: AlignmentParts) -> str:
    models = parts.models
    return f"align-{parts.settings.method_label()}-{models.large.name}-{models.small.name}-{Path(config.out).name}"


def conclude(
    config: DictConfig,
    parts: AlignmentParts,
    outputs: Outputs,
    held_out: Sequence[Dataset],
    summary: TrainSummary,
    file: Path,
) -> None:
    """Compare the small model before and after, print the table, write the result.

    Args:
        outputs: of the large model, which the small one was trained on.
        held_out: rows of the large model's greedy outputs, for each of ``parts.held_out``.
        file: where it goes.
    """
    large = parts.models.ready(parts.teacher.large)
    loaded = {"large": large, "before": parts.models.before(), "after": parts.models.after(summary.out)}
    pairs, answers = (concatenate_datasets([*some]) for some in (parts.held_out.values(), held_out))
    rows = examples(large.tokenizer, parts.task, pairs, answers, parts.settings.report_limit)
    described = {role: describe(one.model, one.path, one.note) for role, one in loaded.items()}
    before, after = (
        Pair(large.model, loaded[name].model, large.tokenizer, {"large": described["large"], "small": described[name]})
        for name in ("before", "after")
    )
    cache = Path(config.results) / "cache"
    figures, large_score = compare(parts.teacher, before, after, parts.policy, rows, parts.task, config.seed, cache)
    split = f"{counted(len(rows.references), 'validation example')} of {parts.task.name}"
    alone = f"large alone: {HEADLINE[parts.task.metric]} {large_score:.2f}"
    show(figures, f"{split}, {policy_label(parts.policy)}; {alone}")
    result = {
        "schema": SCHEMA,
        "kind": KIND,
        "name": file.stem,
        "task": describe_task(parts.task, parts.pairs, config.split, config.limit),
        "models": {role: asdict(one) for role, one in described.items()},
        "policy": policy_fields(parts.policy),
        "outputs": {"folder": parts.settings.outputs, "summary": outputs.summary, "identity": outputs.identity},
        "method": parts.settings.method_fields(),
        "training": {name: value for name, value in asdict(summary).items() if name in TRAINING},
        "report": {"split": "validation", "examples": len(rows.references), "large_quality": large_score},
        "figures": {name: as_json(figure) for name, figure in figures.items()},
        "provenance": parts.provenance,
    }
    for target in (summary.out / IN_CHECKPOINT, file):
        write_json(result, target)
    print(f"result {file}")
