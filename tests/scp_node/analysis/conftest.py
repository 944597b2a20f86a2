"""What every test of the analysis needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom import config

from scp_node.settings import AnalysisSettings


@pytest.fixture(autouse=True)
def _values_as_they_are() -> Iterator[None]:
    with config.disable_value_validation():  # also lets tests write headers that nobody should write
        yield


@pytest.fixture(scope="session")
def rules() -> AnalysisSettings:
    """The intended use as it is by default."""
    return AnalysisSettings()
