"""Two-model text generation."""
