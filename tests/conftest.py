"""One thread: tiny models gain nothing from more, and results stay the same on every machine."""

import torch

torch.set_num_threads(1)
