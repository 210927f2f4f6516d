"""Texts written by a pair of models: decoded batch by batch, kept as they are finished, and scored."""
