"""``python -m pipelines.finetune model=t5-small task=xsum``: fine-tune a model on a task.

Composes, runs, reports. Killed and started again with the same command it goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from pipelines.cli import check_path, entry


def main(config: DictConfig) -> None:
    # Heavy, and not needed to say that a key is misspelt.
    from pipelines.data.encode import encode
    from pipelines.data.task import refuse_prompt
    from pipelines.decoding.config import instantiated
    from pipelines.evaluation import provenance
    from pipelines.evaluation.run import describe_task
    from pipelines.files import result_file
    from pipelines.models import shortlist
    from pipelines.models.loading import identity, load
    from pipelines.training.identity import task_identity
    from pipelines.training.processes import count, is_main
    from pipelines.training.report import leave, say
    from pipelines.training.result import write_result
    from pipelines.training.run import held, train

    task, model, settings = (instantiated(config, node) for node in ("task", "model", "train"))
    refuse_prompt(task)
    check_path("out", config.out)
    check_path("results", config.results)
    out = Path(config.out)
    made = provenance.collect(config)
    with held(out):
        file = result_file(config.results, task.name, f"finetune-{out.name}")
        train_pairs, validation_pairs = task.load("train", config.limit), task.load("validation", config.limit)
        settings.check_rows(len(train_pairs), count())
        texts = (text for column in ("source", "target") for text in train_pairs[column])
        loaded = load(model, task.name, "finetune", texts=texts, seed=settings.seed)
        say(loaded.note)
        rows = encode(train_pairs, loaded.tokenizer, task)
        summary = train(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            train_dataset=rows,
            validation_dataset=encode(validation_pairs, loaded.tokenizer, task),
            references=validation_pairs["target"],
            task=task,
            settings=settings,
            out=out,
            identity={**task_identity(task, train_pairs, validation_pairs), **identity(model)},
            notes={"finetune.yaml": OmegaConf.to_yaml(config, resolve=True)},
        )
    leave(summary)
    if not is_main():
        return
    if settings.exits is not None:  # its lower layers may draft
        shortlist.leave(out, rows["labels"], loaded.tokenizer)
    about = describe_task(task, train_pairs, "train", config.limit)
    write_result(summary, model, loaded, task=about, provenance=made, file=file)


if __name__ == "__main__":
    entry("finetune", main)
