"""Entry points over the decoder: fine-tune, align, generate, evaluate. Run from a clone, never installed."""
