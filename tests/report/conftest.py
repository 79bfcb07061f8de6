"""Findings and the page that many tests of the report look at; nothing changes them."""

import pytest
from reports import everything, page

from ablate.analysis.findings import Findings


@pytest.fixture(scope="session")
def full() -> Findings:
    return everything()


@pytest.fixture(scope="session")
def full_page(full) -> str:
    return page(full)
