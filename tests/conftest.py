"""One thread: tiny models gain nothing from more, and results stay the same on every machine. No property has a
deadline: a busy machine is not a wrong program. Tests that need a GPU are left out where there is none."""

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("bild", deadline=None)
hypothesis.settings.load_profile("bild")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    without = [item for item in items if item.get_closest_marker("gpu") is not None]
    config.hook.pytest_deselected(items=without)
    items[:] = [item for item in items if item not in without]
