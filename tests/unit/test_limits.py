"""What is too large, and lengths at their edges."""

from __future__ import annotations

import pytest

from netraven_keys.crypto import token as tokens
from netraven_keys.errors import ColumnTooNarrow
from netraven_keys.ports import TargetFacts
from netraven_keys.rotation.plan import check_width
from netraven_keys.rotation.sweep import BATCH_ROWS, batch_size
from tests.site import Site

PLACE = ("--table", "t", "--column", "c")


@pytest.mark.fault("B20")
def test_64_mib_is_encrypted_and_one_byte_more_is_refused(sqlite_site: Site) -> None:
    sqlite_site.ok("init")
    plain = bytes(tokens.MAX_PLAINTEXT)
    token = sqlite_site.ok("encrypt", *PLACE, stdin=plain).out
    assert sqlite_site.ok("decrypt", *PLACE, stdin=token).out == plain
    outcome = sqlite_site.run("encrypt", *PLACE, "--json", stdin=plain + b"x")
    assert outcome.status == 1
    assert outcome.json["error"]["code"] == "value_too_large"


@pytest.mark.fault("B20")
def test_large_values_make_small_batches() -> None:
    assert batch_size(0) == batch_size(100) == BATCH_ROWS
    assert batch_size(1024 * 1024) == 32
    assert batch_size(10**9) == 1


def facts(width: int | None, *, binary: bool = False) -> TargetFacts:
    return TargetFacts(("id",), binary, width, 0, (), 0)


@pytest.mark.fault("B19")
@pytest.mark.parametrize(
    ("width", "version", "ours", "plaintext", "fits"),
    [
        (75, 1, 0, 0, True),
        (74, 1, 0, 0, False),
        (75, 9, 75, 0, True),
        (75, 10, 75, 0, False),
        (76, 10, 75, 0, True),
        (131, 1, 0, 60, True),
        (130, 1, 0, 60, False),
        (None, 1, 10**6, 10**6, True),
    ],
)
def test_width_is_exact(width: int | None, version: int, ours: int, plaintext: int, fits: bool) -> None:
    def check() -> None:
        check_width("t", facts(width), version, ours, plaintext)

    if fits:
        check()
    else:
        with pytest.raises(ColumnTooNarrow):
            check()


def test_a_binary_column_is_never_too_narrow() -> None:
    check_width("t", facts(10, binary=True), 1, 0, 10**6)
