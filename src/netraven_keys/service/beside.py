"""What carries spans beside the process that sweeps: lanes of this host, or workers elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from netraven_keys.ports import Crew, Span


@dataclass(frozen=True)
class Step:
    """A lot as it is told of: values that were encrypted, those of them that were written or missed, and rows that have
    to be listed, each with the version that its value was under."""

    seen: int
    written: int
    missed: int
    listed: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Left:
    """Whoever had a span does no more of it: the rest is the sweep's own."""


Told = tuple[Span, Step | Left | None]
"""Of a lot, that a span is left, or None at its end."""


class Beside(Protocol):
    """A context, at whose end nobody is beside any more."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def carries_all(self) -> bool:
        """Whether the sweep's own process is to leave everything to them."""
        ...

    @property
    def busy(self) -> bool: ...
    @property
    def free(self) -> bool:
        """Whether one would take a span."""
        ...

    def give(self, span: Span) -> None: ...
    def heard(self, *, patient: bool) -> Iterator[Told]:
        """What was told since. Waits for something if `patient`."""
        ...

    def heard_out(self) -> Iterator[Step]:
        """What is told of what they have, for as long as that may take."""
        ...


# --- workers elsewhere ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Of a column: the longest value in bytes, and the characters that fit (None: any number)."""

    longest: int
    width: int | None


@dataclass(frozen=True)
class Order:
    """What a worker is told. `lease`: the number of the rotation's lease, where the store has such."""

    keyring_id: str
    epoch: int
    key: str
    primary: int
    target: str
    sizes: Sizes
    lease: int | None
    span: Span
    budget: int


Result = tuple[list[tuple[int, int, int, tuple[tuple[int, str], ...]]], str]
"""The steps of a span, which are plain numbers and names of rows in the order of Step; and why the rest of it was left,
or nothing."""


@dataclass(frozen=True)
class Elsewhere:
    """Where workers are: `begin` reaches them, `carry` is what they call."""

    begin: Callable[[], AbstractContextManager[Crew]]
    carry: Callable[[Order], Result]
