"""The keyring as an application holds it: opened once, followed as it changes, never written.

- A replaced keyring is seen within one second (the published staleness): the document's stamp is
  looked at twice as often. At an unknown key id it is looked at at once; one thread reloads for all.
- While the present keyring cannot be read, or an older copy was put in its place, decryption goes
  on with what is known and encryption refuses: a value must not go to a version that was retired.
- It survives fork: there is no thread, and nonces are random, so nothing is shared that may not be.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path

from netraven_keys.client.settings import ClientSettings, Column, read_client_settings
from netraven_keys.client.uses import CompromisedUses, compromised_versions
from netraven_keys.config.master_keys import MasterKey, master_key_from, nobody
from netraven_keys.config.world import World
from netraven_keys.crypto import selftest
from netraven_keys.crypto import token as tokens
from netraven_keys.crypto.fields import utf8
from netraven_keys.errors import (
    ForbiddenSecret,
    KeyringMissing,
    KeyringUnreadable,
    MalformedValue,
    NetravenKeysError,
    RolledBack,
    UnknownKeyId,
    UsageError,
)
from netraven_keys.keyring.model import Origin
from netraven_keys.keyring.opened import OpenedKeyring, open_document
from netraven_keys.values.ordinary import Open, OrdinaryWriter, ordinary_reader
from netraven_keys.values.place import Place, Row
from netraven_keys.values.reading import ValueReader
from netraven_keys.values.writing import Writer

STALENESS_SECONDS = 1.0
_LOOK_EVERY = STALENESS_SECONDS / 2
_now = time.monotonic


@dataclass
class _Snapshot:
    """One epoch of the keyring, with the readers and writers made for it."""

    opened: OpenedKeyring
    stamp: object | None
    compromised: frozenset[tuple[str, int]]
    readers: dict[tuple[str, str, str, bool], ValueReader] = field(default_factory=dict)
    writers: dict[tuple[str, str, str, bool], Writer] = field(default_factory=dict)
    # By table and column; and by key, table and column.
    ordinary: dict[tuple[str, str], Open] = field(default_factory=dict)
    encrypting: dict[tuple[str, str, str], OrdinaryWriter] = field(default_factory=dict)


def open_keyring(
    config: str | Path | None = None,
    *,
    path: str | Path | None = None,
    master_key: str | None = None,
    application: str = "netraven",
) -> ApplicationKeyring:
    """The keyring of a settings file, or of a key directory and a master key.

    With neither, the settings file is found as the command line finds it (CONFIG_FILE, else
    config/key_rotation.yaml). `master_key` is a generated key or a passphrase. Raises KeyringMissing
    before `init`, NotMine, MasterKeyUnavailable, KeyringTampered, BadConfiguration, InsecurePermissions,
    CryptoUnsound.
    """
    world = World.present()
    if path is None:
        if master_key is not None:
            raise UsageError("a master key is given together with `path`", remedy="Give both, or a settings file.")
        return ApplicationKeyring(read_client_settings(config, world))
    if config is not None:
        raise UsageError("give a settings file or a path, not both", remedy="Leave one of them out.")
    declared = {"name": "daily", "provider": "env"}
    key = (
        master_key_from(declared, world, nobody)
        if master_key is None
        else master_key_from({"name": "daily", "provider": "passphrase"}, world, lambda label, twice: master_key)
    )
    keys: list[MasterKey] = [key]
    return ApplicationKeyring(ClientSettings(application, Path(path), keys, world.production))


class ApplicationKeyring:
    """Encrypts and decrypts an application's values. Made by `open_keyring`; safe to share between threads."""

    def __init__(self, settings: ClientSettings) -> None:
        selftest.check()
        self._settings = settings
        self._store = settings.store()
        self._lock = threading.Lock()
        self._uses = CompromisedUses()
        self._trouble: tuple[type[NetravenKeysError], str, str | None] | None = None
        self._snapshot = self._load()
        self._ordinary = self._snapshot.ordinary
        self._good_until = 0.0
        self._looked()
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    def __repr__(self) -> str:
        return f"<ApplicationKeyring {self._store.place} epoch {self.epoch}>"

    @property
    def epoch(self) -> int:
        """The epoch of the keyring as this process knows it."""
        return self._snapshot.opened.keyring.epoch

    def compromised_uses(self) -> dict[tuple[str, int], int]:
        """How often this process has read a value under a compromised version, by key and version."""
        return self._uses.counts()

    # --- what an application calls ----------------------------------------------------------------

    def encrypt(self, key: str, plaintext: str | bytes, *, table: str, column: str, row: Row | None = None) -> str:
        """The text form of a value, for a text column. `row` is the primary key where `bind: row`.

        Raises UnknownKey, NothingEncrypts, KeyringUnreadable, RolledBack, UsageError, PlaintextUnsupported.
        """
        given = _encoded(plaintext)
        ordinary = self._ordinary_writer(key, table, column) if row is None else None
        made = None if ordinary is None else ordinary.text(given)
        return self._writer(key, table, column, row).text(given, row) if made is None else made

    def encrypt_binary(
        self, key: str, plaintext: str | bytes, *, table: str, column: str, row: Row | None = None
    ) -> bytes:
        """The binary form, for a binary column. Raises as `encrypt` does."""
        given = _encoded(plaintext)
        ordinary = self._ordinary_writer(key, table, column) if row is None else None
        made = None if ordinary is None else ordinary.binary(given)
        return self._writer(key, table, column, row).binary(given, row) if made is None else made

    def decrypt(self, token: str | bytes, *, table: str, column: str, row: Row | None = None) -> bytes:
        """The plaintext. Reads what the declared target accepts, at its present and former names.

        Raises DecryptionFailed (one class per reason) and UsageError; never returns its input.
        """
        if row is None and _now() < self._good_until:
            try:
                plain = self._ordinary[table, column](token)
            except KeyError:
                plain = None
            if plain is not None:
                return plain
        return self._decrypt(token, table, column, row)

    def _decrypt(self, token: str | bytes, table: str, column: str, row: Row | None) -> bytes:
        try:
            return self._open(token, table, column, row)
        except UnknownKeyId:
            if not self._look(at_once=True):
                raise
        return self._open(token, table, column, row)

    def rebind(self, token: str | bytes, *, table: str, column: str, row: Row, new_row: Row) -> str | bytes:
        """A value for another row: its primary key changed, or the row was copied. Same form as given."""
        plaintext = self.decrypt(token, table=table, column=column, row=row)
        writer = self._writer(self._key_of(token, table, column), table, column, new_row)
        return writer.write(plaintext, new_row, binary=isinstance(token, bytes))

    # --- one value --------------------------------------------------------------------------------

    def _open(self, token: str | bytes, table: str, column: str, row: Row | None) -> bytes:
        snapshot = self._present()
        declared = self._column(table, column, row)
        key = declared.key if declared.key else self._key_of(token, table, column)
        place = (key, table, column, declared.place.bind_row)
        reader = snapshot.readers.get(place)
        if reader is None:
            reader = ValueReader(snapshot.opened, key, declared.place, accept=declared.accept, former=declared.former)
            snapshot.readers[place] = reader
            self._remember_reader(snapshot, table, column, declared)
        found = reader.open(token, row)
        if found.version is not None and (key, found.version) in snapshot.compromised:
            self._uses.count(key, found.version)
        return found.plaintext.expose()

    def _remember_reader(self, snapshot: _Snapshot, table: str, column: str, declared: Column) -> None:
        """For the calls after this one, of which nearly all are ordinary."""
        if not declared.place.bind_row:
            keys = [declared.key] if declared.key else [key.name for key in snapshot.opened.keyring.keys]
            readable = [key for key in keys if snapshot.opened.may_use(key)]
            snapshot.ordinary[table, column] = ordinary_reader(snapshot.opened, readable, declared.place)

    def _column(self, table: str, column: str, row: Row | None) -> Column:
        """The declared column, or a plain one of no particular key."""
        declared = self._settings.columns.get((table, column))
        if declared is None:
            return Column("", Place(self._settings.application, table, column, bind_row=row is not None))
        if row is not None and not declared.place.bind_row and not any(p.bind_row for p in declared.former):
            raise UsageError(
                f"{table}.{column} is declared with `bind: column`, so a row cannot be given",
                remedy="Leave the row out, or declare `bind: row`.",
            )
        return declared

    def _key_of(self, token: str | bytes, table: str, column: str) -> str:
        """The named key a value is under, by its key id; the declared one for values that have none."""
        declared = self._settings.columns.get((table, column))
        if declared is not None:
            return declared.key
        try:
            parsed = tokens.parse_text(token) if isinstance(token, str) else tokens.parse_wire(token)
        except tokens.NotAToken:
            raise MalformedValue("the value is not one of ours, and the column is not declared") from None
        found = self._present().opened.keyring.owner_of(parsed.key_id)
        if found is None:
            raise UnknownKeyId(f"no key of this keyring has the key id {parsed.key_id:08x}")
        return found[0].name

    def _ordinary_writer(self, key: str, table: str, column: str) -> OrdinaryWriter | None:
        """None where it is time to look at the keyring, or something is to be said."""
        if self._trouble is not None or time.monotonic() >= self._good_until:
            return None
        return self._snapshot.encrypting.get((key, table, column))

    def _writer(self, key: str, table: str, column: str, row: Row | None) -> Writer:
        snapshot = self._present()
        if self._trouble is not None:
            # Made anew each time: a shared exception would collect every caller's frames and plaintexts.
            error, message, remedy = self._trouble
            raise error(message, remedy=remedy)
        declared = self._column(table, column, row)
        if declared.key and declared.key != key:
            raise UsageError(
                f"{table}.{column} is declared for the key {declared.key!r}, not {key!r}",
                remedy="Use the declared key, or correct the target's `key`.",
            )
        place = (key, table, column, declared.place.bind_row)
        writer = snapshot.writers.get(place)
        if writer is None:
            writer = Writer(snapshot.opened, key, declared.place)
            snapshot.writers[place] = writer
            if not declared.place.bind_row:
                snapshot.encrypting[key, table, column] = OrdinaryWriter(snapshot.opened, key, declared.place)
        return writer

    # --- following the keyring --------------------------------------------------------------------

    def _load(self) -> _Snapshot:
        stamp = self._store.stamp()
        document = self._store.load()
        if document is None:
            raise KeyringMissing(
                f"there is no keyring at {self._store.place}",
                remedy="Run `netraven-keys init`, or put keyring.json back if there was one.",
            )
        opened = open_document(document, self._settings.master_keys)
        if self._settings.production and opened.slot.origin == Origin.DEVELOPMENT:
            raise ForbiddenSecret("the keyring opens with a development secret, which production does not allow")
        return _Snapshot(opened, stamp, compromised_versions(opened.keyring))

    def _looked(self) -> None:
        self._good_until = time.monotonic() + _LOOK_EVERY

    def _present(self) -> _Snapshot:
        if time.monotonic() >= self._good_until:
            self._look()
        return self._snapshot

    def _look(self, *, at_once: bool = False) -> bool:
        """Whether a new keyring was taken in. One thread looks; the others wait and use what it found."""
        seen = self._snapshot
        with self._lock:
            if self._snapshot is not seen:
                return True
            if not at_once and time.monotonic() < self._good_until:
                return False
            return self._take_in()

    def _take_in(self) -> bool:
        try:
            stamp = self._store.stamp()
            changed = stamp is None or stamp != self._snapshot.stamp
            fresh = self._load() if changed else self._snapshot
        except NetravenKeysError as problem:
            said = f"the present keyring cannot be used ({problem.message}); this process knows epoch {self.epoch}"
            self._trouble = (KeyringUnreadable, said, None)
            return False
        finally:
            self._looked()
        before, after = self._snapshot.opened.keyring, fresh.opened.keyring
        if after.keyring_id != before.keyring_id:
            self._trouble = (
                KeyringUnreadable,
                f"another keyring ({after.keyring_id}) lies at {self._store.place}; "
                f"this process uses {before.keyring_id}",
                "Put the right keyring.json back, or restart the application if the change is meant.",
            )
            return False
        if after.epoch < before.epoch:
            self._trouble = (
                RolledBack,
                f"the keyring went back from epoch {before.epoch} to {after.epoch}: an older copy was put in its place",
                None,
            )
            return False
        self._trouble = None
        self._snapshot, self._ordinary = fresh, fresh.ordinary
        return changed


def _after_fork(reference: weakref.ref[ApplicationKeyring]) -> None:
    """A lock that a thread of the parent held would never be released in the child."""
    keyring = reference()
    if keyring is not None:
        keyring._lock = threading.Lock()
        keyring._uses.after_fork()


def _encoded(plaintext: str | bytes) -> bytes:
    """Raises UsageError for anything but text and bytes, and for text that has no UTF-8 form."""
    if isinstance(plaintext, bytes):
        return plaintext
    if not isinstance(plaintext, str):
        raise UsageError(f"a value to encrypt is text or bytes, not {type(plaintext).__name__}")
    encoded = utf8(plaintext)
    if encoded is None:
        raise UsageError("the text to encrypt has no UTF-8 form (a lone surrogate)")
    return encoded
