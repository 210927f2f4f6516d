import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models only lose time to threads, most of all where several test processes share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
