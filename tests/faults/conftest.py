"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.runs import Killer
from tests.site import Site


@pytest.fixture
def killer(site: Site) -> Iterator[Killer]:
    found = Killer(site)
    yield found
    found.end()
