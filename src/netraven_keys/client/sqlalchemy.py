"""Encrypted columns for SQLAlchemy: plaintext in the application, ciphertext in every statement.

class Credential(Base):
    password: Mapped[str] = mapped_column(EncryptedText("credentials"))

Nothing else of the client imports this file, so that the client goes on working without SQLAlchemy.

- A value is bound to the table and column its type is attached to. One type serves one column.
- Two encryptions of one value differ, so a comparison in SQL would be silently false: it raises.
- SQL that is assigned to a column would be stored as it is, in the clear: it raises, see sqlalchemy_assigned.
- SQLAlchemy shows a statement's parameters in its errors, and until they are processed those are
  plaintexts. Errors from here are never wrapped by it, and a statement that fails before its
  parameters were encrypted shows none of them.
"""

from __future__ import annotations

import functools
import os
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Column, LargeBinary, Table, Text, TypeDecorator, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import DontWrapMixin, StatementError
from sqlalchemy.sql import operators
from sqlalchemy.sql.expression import Null
from sqlalchemy.types import TypeEngine

from netraven_keys.client.keyring import ApplicationKeyring, open_keyring
from netraven_keys.client.sqlalchemy_assigned import check_defaults, watch_assignments
from netraven_keys.errors import NetravenKeysError, UsageError

_T = TypeVar("_T", str, bytes)
_R = TypeVar("_R")
KeyringSource = ApplicationKeyring | Callable[[], ApplicationKeyring]

_NULL_TESTS = (
    operators.eq,
    operators.ne,
    operators.is_,
    operators.is_not,
    operators.is_distinct_from,
    operators.is_not_distinct_from,
)


class _Incomparable:
    """Of two columns: SQLAlchemy asks so whether they are one, in lists of its own. In a statement it is an error."""

    def __init__(self, same: bool, refused: UsageError) -> None:
        self._same = same
        self._refused = refused

    def __bool__(self) -> bool:
        return self._same

    def __clause_element__(self, *_: Any) -> NoReturn:
        """Raises UsageError: this is how a statement takes in what it is given."""
        raise self._refused

    __invert__ = __and__ = __rand__ = __or__ = __ror__ = __clause_element__


class _OnlyNull(TypeDecorator.Comparator[Any]):
    """What may be asked of an encrypted column in SQL: whether it is NULL."""

    def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> Any:
        """Raises UsageError for everything but a test for NULL."""
        if op in _NULL_TESTS and len(other) == 1 and (other[0] is None or isinstance(other[0], Null)):
            return super().operate(op, *other, **kwargs)
        name = getattr(op, "__name__", "this operator").removesuffix("_op").rstrip("_")
        refused = UsageError(
            f"{_of(self.expr.type)} is encrypted, so SQL cannot compare, order or change it ({name}): "
            "two encryptions of one value differ",
            remedy="Find the row by another column, and compare in Python. A test for NULL works: `is_(None)`.",
        )
        if op in (operators.eq, operators.ne) and hasattr(other[0], "__clause_element__"):
            return _Incomparable((hash(self.expr) == hash(other[0])) is (op is operators.eq), refused)
        raise refused

    def reverse_operate(self, op: operators.OperatorType, other: Any, **kwargs: Any) -> Any:
        """Raises UsageError."""
        return self.operate(op, other, **kwargs)


class _EncryptedColumn(TypeDecorator[_T]):
    """What both types share. `table` and `column` are those given, else those of the column it is attached to."""

    comparator_factory = _OnlyNull

    # Not keyword-only, and stored under their own names: SQLAlchemy makes its cache key of the
    # positional parameters' attributes, and must never use one column's processors for another's.
    def __init__(
        self, key: str, keyring: KeyringSource | None = None, table: str | None = None, column: str | None = None
    ) -> None:
        """`keyring` is one, or is called for each value and returns one; without it, `open_keyring()` once.

        `table` and `column` name the target's where the settings spell them otherwise than the database.
        """
        super().__init__()
        self.key = key
        self.keyring = keyring
        self.table = table
        self.column = column
        self._given = (table, column)
        self._attached = False

    def __repr__(self) -> str:
        """As it was made, for a migration script; a keyring is left out, as a migration needs none."""
        table, column = self._given
        named = "".join(f", {n}={v!r}" for n, v in (("table", table), ("column", column)) if v is not None)
        return f"{type(self).__name__}({self.key!r}{named})"

    def copy(self, **kw: Any) -> Any:
        """A copy may be attached to another column: mixins and `to_metadata` copy. Until then it is of the same."""
        made = super().copy(**kw)
        made._attached = False
        return made

    def with_variant(self, type_: Any, *dialect_names: str) -> NoReturn:
        """Raises UsageError: with the other type's database the values would be stored in the clear."""
        raise UsageError(
            f"{_of(self)} is encrypted, and a variant for {', '.join(dialect_names)} would not be",
            remedy="Leave `with_variant` out: the type works with every database.",
        )

    def literal_processor(self, dialect: Dialect) -> NoReturn:
        """Raises UsageError. A renderer that failed later would be reported together with the value."""
        raise _unwrapped(
            UsageError(
                f"values of {_of(self)} are not written into the text of a statement",
                remedy="Leave `literal_binds` and `literal_execute` out; send the value as a parameter.",
            )
        )

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Before the first statement of an engine with an encrypted column: see _hide_unprocessed."""
        if not event.contains(dialect, "handle_error", _hide_unprocessed):
            event.listen(dialect, "handle_error", _hide_unprocessed)
        return super().load_dialect_impl(dialect)

    # --- values -----------------------------------------------------------------------------------

    def process_bind_param(self, value: _T | None, dialect: Dialect) -> Any:
        """Raises what `ApplicationKeyring.encrypt` and `open_keyring` raise, with no plaintext in it."""
        return None if value is None else _guarded(self._encrypted, value)

    def process_result_value(self, value: Any, dialect: Dialect) -> _T | None:
        """Raises what `ApplicationKeyring.decrypt` and `open_keyring` raise."""
        return None if value is None else _guarded(self._decrypted, value)

    def _encrypted(self, value: Any) -> Any:
        raise NotImplementedError  # each type of column has its own

    def _decrypted(self, stored: Any) -> _T:
        raise NotImplementedError  # the same

    def _open(self, stored: Any) -> bytes:
        if not isinstance(stored, str | bytes):
            raise UsageError(f"{_of(self)} holds a {type(stored).__name__}, not text or bytes")
        keyring, table, column = self._place()
        return keyring.decrypt(stored, table=table, column=column)

    def _place(self) -> tuple[ApplicationKeyring, str, str]:
        """Raises UsageError for a type that belongs to no column, and for a target bound to the row."""
        if self.table is None or self.column is None:
            raise UsageError(
                f"{self!r} is not the type of a table's column, so its values have no place to be bound to",
                remedy="Use it as the type of a column, or give it `table` and `column`.",
            )
        source = _default.keyring if self.keyring is None else self.keyring
        keyring = source if isinstance(source, ApplicationKeyring) else source()
        declared = keyring._settings.columns.get((self.table, self.column))
        if declared is not None and declared.place.bind_row:
            raise UsageError(
                f"{_of(self)} is declared with `bind: row`, and a column type does not know its row",
                remedy="Use a plain column and `keys.encrypt(..., row=)`, or declare `bind: column`.",
            )
        return keyring, self.table, self.column


class EncryptedText(_EncryptedColumn[str]):
    """Text, stored as a text token. `None` stays NULL; the empty string is a value."""

    impl = Text
    cache_ok = True

    def _encrypted(self, value: Any) -> str:
        if not isinstance(value, str):
            raise UsageError(f"{_of(self)} takes text, not {type(value).__name__}")
        keyring, table, column = self._place()
        return keyring.encrypt(self.key, value, table=table, column=column)

    def _decrypted(self, stored: Any) -> str:
        text = _text(self._open(stored))
        if text is None:
            raise UsageError(
                f"{_of(self)} holds a value that is not UTF-8 text", remedy="Declare it EncryptedBytes, or mend it."
            )
        return text


class EncryptedBytes(_EncryptedColumn[bytes]):
    """Bytes, stored in the binary form. `None` stays NULL; empty bytes are a value."""

    impl = LargeBinary
    cache_ok = True

    def _encrypted(self, value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise UsageError(f"{_of(self)} takes bytes, not {type(value).__name__}")
        keyring, table, column = self._place()
        return keyring.encrypt_binary(self.key, value, table=table, column=column)

    def _decrypted(self, stored: Any) -> bytes:
        return self._open(stored)


def _text(plaintext: bytes) -> str | None:
    """None, and not an error: the decoder's holds the whole plaintext."""
    try:
        return plaintext.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _of(type_: Any) -> str:
    table, column = getattr(type_, "table", None), getattr(type_, "column", None)
    return "an encrypted column" if table is None or column is None else f"{table}.{column}"


# --- which column a type belongs to ---------------------------------------------------------------


@event.listens_for(_EncryptedColumn, "after_parent_attach", propagate=True)
def _meets_column(type_: _EncryptedColumn[Any], column: Any) -> None:
    """A column gets its name and table after its type. Columns of aliases and subqueries do not come here."""
    if not isinstance(column, Column):
        return
    if isinstance(getattr(column, "table", None), Table):
        _attach(type_, column, column.table)
    else:
        event.listen(column, "after_parent_attach", functools.partial(_attach, type_))


def _attach(type_: _EncryptedColumn[Any], column: Column[Any], table: Any) -> None:
    """Raises UsageError for a type that belongs to another column already."""
    given_table, given_column = type_._given
    place = (given_table or table.fullname, given_column or column.name)
    if type_._attached and place != (type_.table, type_.column):
        raise UsageError(
            f"one {type_!r} object is the type of both {_of(type_)} and {'.'.join(place)}, "
            "and a value opens only in its own column",
            remedy="Write EncryptedText(...) or EncryptedBytes(...) anew for each column.",
        )
    check_defaults(column, ".".join(place))
    type_.table, type_.column = place
    type_._attached = True


watch_assignments(lambda type_: (type_.table, type_.column) if isinstance(type_, _EncryptedColumn) else None)


# --- errors that leave a statement ----------------------------------------------------------------


class _Unwrapped(DontWrapMixin, Exception):
    """SQLAlchemy raises such an error as it is. It does so `from` itself, which would make a circle."""

    @property
    def __cause__(self) -> BaseException | None:
        cause: BaseException | None = BaseException.__dict__["__cause__"].__get__(self)
        return None if cause is self else cause

    @__cause__.setter
    def __cause__(self, cause: BaseException | None) -> None:
        BaseException.__dict__["__cause__"].__set__(self, cause)

    def __reduce__(self) -> Any:
        """Pickled as the error's own class, which the other process can find."""
        return type(self).__bases__[1], self.args, dict(vars(self))


_UNWRAPPED: dict[type[NetravenKeysError], type[NetravenKeysError]] = {}


def _unwrapped_class(known: type[NetravenKeysError]) -> type[NetravenKeysError]:
    """Made once for each class, so that there are no more of them than errors."""
    if known not in _UNWRAPPED:
        names = {"__module__": known.__module__, "__qualname__": known.__qualname__, "__doc__": known.__doc__}
        _UNWRAPPED[known] = type(known.__name__, (_Unwrapped, known), names)
    return _UNWRAPPED[known]


def _unwrapped(problem: Exception) -> NetravenKeysError:
    """The same error in a class that SQLAlchemy does not wrap; of a foreign one only its kind and place are kept."""
    if isinstance(problem, NetravenKeysError) and isinstance(problem, DontWrapMixin):
        return problem
    if not isinstance(problem, NetravenKeysError):
        frame = traceback.extract_tb(problem.__traceback__)[-1]
        problem = NetravenKeysError(
            f"an unexpected {type(problem).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}",
            remedy="Nothing was encrypted or decrypted. If the place named is in netraven-keys, please report it.",
        )
    made = _unwrapped_class(type(problem))
    error = made.__new__(made, *problem.args)
    vars(error).update(vars(problem))
    return error


def _guarded(work: Callable[[Any], _R], value: Any) -> _R:
    """Raises NetravenKeysError only, and outside of the handler: the first error must not hang on the second."""
    try:
        return work(value)
    except Exception as problem:  # noqa: BLE001  # whatever it is, SQLAlchemy would show it with the parameters
        found, frames = _unwrapped(problem), problem.__traceback__
    raise found.with_traceback(frames)


def _hide_unprocessed(context: ExceptionContext) -> None:
    """A statement that failed before it could be sent is reported with its parameters as the caller gave them.

    That can be another column's doing (a date that is none): the plaintext would stand beside it.
    """
    shown = context.sqlalchemy_exception
    if context.execution_context is None and isinstance(shown, StatementError) and shown.params:
        shown.params = None
        shown.hide_parameters = True
        shown.add_detail("the parameters are not shown: they were not encrypted yet")


# --- the keyring of the process -------------------------------------------------------------------


class _Default:
    """Opened at the first value, not at import: settings and master key need not be there before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keyring: ApplicationKeyring | None = None
        os.register_at_fork(after_in_child=self._after_fork)

    def keyring(self) -> ApplicationKeyring:
        """Raises what `open_keyring` raises; the next call tries again."""
        if self._keyring is None:
            with self._lock:
                if self._keyring is None:
                    self._keyring = open_keyring()
        return self._keyring

    def _after_fork(self) -> None:
        """A lock that a thread of the parent held would never be released in the child."""
        self._lock = threading.Lock()


_default = _Default()
