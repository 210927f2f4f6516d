"""Speed side by side: this decoder and its peers on the same inputs, in one process, taking turns.

``python -m benchmarks.latency MODE`` measures and writes JSON, ``python -m benchmarks.table FILE...`` shows it. Needs
torch and transformers; CTranslate2, sacrebleu, scikit-learn and matplotlib serve where they are installed.
"""
