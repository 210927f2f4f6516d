from collections.abc import Iterator

import pytest

from tests.hub.server import LocalHub


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    server = LocalHub()
    yield server
    server.close()
