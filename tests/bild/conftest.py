"""What several files of tests share."""

from __future__ import annotations

import pytest

import bild
from bild.engine.t5 import shelf
from tests.bild.models import pair
from tests.bild.tape import Tape


@pytest.fixture
def tape(monkeypatch):
    """Recordings go to it, and no model has any from before."""
    tape = Tape()
    monkeypatch.setattr(shelf, "capturer_of", lambda device: tape)
    for model in (*pair(0), *pair(3)):
        bild.forget(model)
    yield tape
    for model in (*pair(0), *pair(3)):
        bild.forget(model)
