"""Fine-tuning: the trainer, its checkpoints and their resumption."""
