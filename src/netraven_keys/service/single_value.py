"""`encrypt` and `decrypt`: one value, as the application's client would."""

from __future__ import annotations

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import UsageError
from netraven_keys.rotation.reencrypt import TargetRules
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import UseCounter, check_history, open_owned
from netraven_keys.values.place import Place, Row
from netraven_keys.values.reading import ValueReader
from netraven_keys.values.writing import Writer


def _rules(inst: Installation, key: str, table: str, column: str, row: Row | None) -> TargetRules:
    """The declared target's rules, or plain ones for a column that is not declared (yet)."""
    for managed in inst.targets:
        place = managed.rules.place
        if (managed.rules.key, place.table, place.column) == (key, table, column):
            if not place.bind_row and row is not None:
                raise UsageError(
                    f"{table}.{column} is declared with `bind: column`, so a row cannot be given",
                    remedy="Leave out --row, or declare `bind: row`.",
                )
            return managed.rules
    inst.key_names(key)
    return TargetRules("", key, Place(inst.application, table, column, bind_row=row is not None))


def encrypt(inst: Installation, key: str, plaintext: SecretBytes, *, table: str, column: str, row: Row | None) -> str:
    """The text form. Raises NothingEncrypts, RolledBack, UsageError, PlaintextUnsupported."""
    rules = _rules(inst, key, table, column, row)
    owned = open_owned(inst)
    check_history(inst, owned.keyring, must_reach=True)
    writer = Writer(owned, key, rules.place)
    UseCounter(inst, owned, writer.version.key_id, block=1).reserve(1)
    return writer.text(plaintext.expose(), row)


def decrypt(inst: Installation, key: str, token: str, *, table: str, column: str, row: Row | None) -> SecretBytes:
    """Reads what a declared target accepts, at its present and former names. Raises DecryptionFailed."""
    rules = _rules(inst, key, table, column, row)
    reader = ValueReader(open_owned(inst), key, rules.place, accept=rules.accept, former=rules.former)
    return reader.open(token, row).plaintext
