"""``python -m pipelines.align``: train the small model on outputs of the large one, so that its drafts are accepted.

Composes, runs, reports. Killed and started again with the same command it goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pipelines.cli import entry


def main(config: DictConfig) -> None:
    # Heavy, and not needed to say that a key is misspelt.
    from pipelines.alignment.parts import assemble, method_identity, objective, refuse_other_training
    from pipelines.alignment.report import described
    from pipelines.alignment.result import conclude, result_name
    from pipelines.alignment.run import greedy, training_rows
    from pipelines.files import result_file
    from pipelines.models import shortlist
    from pipelines.training.identity import task_identity
    from pipelines.training.processes import is_main, say
    from pipelines.training.report import leave
    from pipelines.training.run import held, train

    parts = assemble(config)
    file = result_file(config.results, parts.task.name, result_name(config, parts))
    task, settings, start, teacher = parts.task, parts.settings, parts.start, parts.teacher
    with held(Path(config.out)):
        refuse_other_training(Path(config.out), config, parts)
        outputs = teacher.answer(task, config.split, parts.pairs, settings, config.seed)
        say(described(outputs.summary, settings.max_new_tokens(task.target_length)))
        held_out = [
            teacher.answer(task, folder, rows, greedy(settings), config.seed) for folder, rows in parts.held_out.items()
        ]
        validated = held_out[0].rows
        teacher.large.model.to("cpu")  # until it is asked again its memory is the small model's
        how = f"{parts.models.small.name} on them, by {settings.method_label()}"
        say(f"\ntraining {how}; it is validated against the large model's outputs, too")
        summary = train(
            model=start.model,
            tokenizer=start.tokenizer,
            train_dataset=training_rows(outputs.rows, start.tokenizer, task),
            validation_dataset=training_rows(validated, start.tokenizer, task),
            task=task,
            settings=parts.training,
            out=config.out,
            identity={**method_identity(config, parts), **task_identity(task, outputs.rows, validated)},
            objective=objective(config, parts),
            notes={"align.yaml": OmegaConf.to_yaml(config, resolve=True)},
        )
        leave(summary)
        if is_main():
            shortlist.leave(summary.out, outputs.rows["tokens"], start.tokenizer, settings.shortlist_min_count)
            conclude(config, parts, outputs, [one.rows for one in held_out], summary, file)


if __name__ == "__main__":
    entry("align", main)
