"""What tests of readers share."""

import pytest

from imgstack_ml.io import register_format
from imgstack_ml.io.formats import registry


@pytest.fixture
def registered(monkeypatch):
    """`register_format`, of which all is forgotten at the end of the test."""
    for name in ("_registered", "_overriding"):
        monkeypatch.setattr(registry, name, [])
    registry._forget()
    yield register_format
    monkeypatch.undo()
    registry._forget()
