"""A clone in which somebody commits while a command works."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.evaluation import provenance

LATER = {"revision": "later", "changed": False}


def committed_during(patched: pytest.MonkeyPatch, place: Any, name: str) -> None:
    """From the first call of ``place.name`` on another revision stands there than the one that runs."""
    real = getattr(place, name)

    def meanwhile(*arguments: Any, **keywords: Any) -> Any:
        patched.setattr(provenance, "git", lambda: LATER)
        return real(*arguments, **keywords)

    patched.setattr(place, name, meanwhile)
