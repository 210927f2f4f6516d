"""What ``accelerate launch`` runs in ``test_gradients``: the same training as in one process."""

import sys
from pathlib import Path

from tests.training.test_gradients import exact_run

if __name__ == "__main__":
    exact_run(Path(sys.argv[1]), accumulation=int(sys.argv[2]))
