"""T5 and mT5 in this package's own steps: encoder, decoder, and the runner that keeps their caches."""
