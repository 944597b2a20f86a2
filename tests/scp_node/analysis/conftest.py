"""What every test of the analysis needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom import config

from scp_node.analysis.attributes import stop_value_validation
from scp_node.settings import AnalysisSettings


@pytest.fixture(autouse=True)
def _values_as_they_are() -> Iterator[None]:
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    stop_value_validation()
    config.settings.writing_validation_mode = config.IGNORE  # tests write headers that nobody should write
    yield
    config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


@pytest.fixture(scope="session")
def rules() -> AnalysisSettings:
    """The intended use as it is by default."""
    return AnalysisSettings()
