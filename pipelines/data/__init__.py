"""Tasks: where source-target pairs come from, the vocabulary trained on them, and their encoding for a model."""
