"""What ``accelerate launch`` runs in tests: a training as in one process, or one with an evaluation without end."""

import sys
from pathlib import Path

from pipelines.training import report
from tests.training import child, tiny
from tests.training.test_gradients import exact_run

if __name__ == "__main__":
    kind, out = sys.argv[1], Path(sys.argv[2])
    if kind == "exact":
        exact_run(out, accumulation=2)
    else:
        child.SABOTAGES[kind]()
        report.leave(tiny.run(out, device="auto", accumulation=1, save_every=1000))
