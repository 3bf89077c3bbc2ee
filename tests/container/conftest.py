"""What the container tests share. Collected only where NETRAVEN_KEYS_TEST_CONTAINERS is 1 (tests/conftest.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.deployment import Deployment
from tests.container.kit import Bench, bench_in


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, so that the other worker does the rest meanwhile."""
    items.sort(key=lambda item: "five_years" not in item.nodeid)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A place to make containers, volumes and networks in."""
    yield from bench_in(tmp_path)


@pytest.fixture
def deployment(bench: Bench) -> Deployment:
    """An installation on empty volumes, its database not yet started."""
    return Deployment(bench)
