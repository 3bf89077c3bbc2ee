"""The whole tree of errors a user can meet.

Each class has a stable `code`, an exit status (docs/reference/exit-codes.md), an HTTP status and a
remedy. A message never holds a secret, a plaintext or a ciphertext: what is put into one is a
name, a path, a number or a key id.
"""

from __future__ import annotations

from typing import ClassVar


class NetravenKeysError(Exception):
    """Base of every error this package raises on purpose.

    `message` says what is wrong, `remedy` what to do about it; both are one or more plain sentences.
    `command` is the shell command that mends it, where one does.
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    default_remedy: ClassVar[str] = "Run `netraven-keys status` to see the state of the installation."
    default_command: ClassVar[str] = ""

    def __init__(self, message: str, *, remedy: str | None = None, command: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy if remedy is not None else self.default_remedy
        self.command = command if command is not None else self.default_command


# --- exit 1: failed -------------------------------------------------------------------------------


class KeyringTampered(NetravenKeysError):
    """The keyring document is damaged, forged, or of an unknown format."""

    code = "keyring_tampered"
    default_remedy = "Nothing was changed. Put back the newest copy of keyring.json that is known to be good."


class StorageFailed(NetravenKeysError):
    """A file could not be written or read durably; nothing is assumed about what the disk holds."""

    code = "storage_failed"
    default_remedy = "Mend the volume named above (space, permissions, mount), then run the same command again."


class TargetUnavailable(NetravenKeysError):
    """The database of a target cannot be reached, or ended the connection."""

    code = "target_unavailable"
    http_status = 503
    default_remedy = "Start the database or mend the target's `url`, then run the same command again; it resumes."


class TargetUnreadable(NetravenKeysError):
    """The database answers, and holds a primary key or value that the driver cannot read or page by."""

    code = "target_unreadable"
    default_remedy = "Mend the row named by the database's own tools; nothing of this target was changed meanwhile."


class AuditUnavailable(NetravenKeysError):
    """The audit log cannot be written: no audit, no change."""

    code = "audit_unavailable"
    default_remedy = "Mend the audit path named above; nothing is changed while the audit log cannot be written."


class AuditBroken(NetravenKeysError):
    """The audit log is not the one the keyring was saved with."""

    code = "audit_broken"
    default_remedy = (
        "Put back the audit log that belongs to this keyring, and find out who cut or replaced it. "
        "Reading values goes on meanwhile."
    )


class DecryptionFailed(NetravenKeysError):
    """A stored value did not open. `reason` is what it is listed with in quarantine."""

    code = "decryption_failed"
    http_status = 422
    reason: ClassVar[str] = "bad_tag"
    default_remedy = "Check the key, table, column and row given: a value opens only at the place it was encrypted for."


class BadTag(DecryptionFailed):
    """The authentication tag does not fit: altered bytes, or another table, column or row."""

    code = "bad_tag"


class MalformedValue(DecryptionFailed):
    """It starts like one of our values and is not one."""

    code = "malformed"
    reason = "malformed"
    default_remedy = "The value was cut or altered. Restore it from a dump of the database."


class LabelMismatch(DecryptionFailed):
    """The version in the label is not the version its key id belongs to."""

    code = "label_mismatch"
    reason = "label_mismatch"
    default_remedy = "The value's label was altered. Restore the value from a dump of the database."


class UnknownKeyId(DecryptionFailed):
    """No key of this keyring has that key id."""

    code = "unknown_key"
    reason = "unknown_key"
    default_remedy = "The value belongs to another keyring, or to a version this keyring does not hold any more."


class OtherKey(DecryptionFailed):
    """The value was encrypted under another named key of the same keyring."""

    code = "other_key"
    reason = "other_key"
    default_remedy = "Name the key the value was encrypted with, or correct the target's `key`."


class DestroyedVersion(DecryptionFailed):
    """The version was destroyed (or is scheduled to be, and clients are refused)."""

    code = "destroyed"
    reason = "destroyed"
    http_status = 410
    default_remedy = "If the version is only scheduled for destruction, cancel that; else the value is gone."


class UndeclaredFormat(DecryptionFailed):
    """A format the target does not declare in `accept`."""

    code = "undeclared_format"
    reason = "undeclared_format"
    default_remedy = "Declare the format in the target's `accept` if the column really holds such values."


class LegacyKeyMissing(DecryptionFailed):
    """A value of a predecessor, whose key is not in the keyring."""

    code = "legacy_key_missing"
    reason = "legacy_key_missing"
    default_remedy = "Give the predecessor's keys in `legacy:` and run `netraven-keys init` again; it adds them."


class PlaintextFound(DecryptionFailed):
    """The value is not encrypted, and the target does not accept plaintext."""

    code = "plaintext"
    reason = "plaintext"
    default_remedy = "Add `plaintext` to the target's `accept` if such values are to be adopted."


class PlaintextUnsupported(NetravenKeysError):
    """A plaintext that cannot be encrypted as given (too large)."""

    code = "value_too_large"
    http_status = 413
    default_remedy = "Encrypt a smaller value: one value may hold at most 64 MiB."


class KeyringUnreadable(NetravenKeysError):
    """The application cannot see the present keyring, so it must not encrypt with an older one."""

    code = "keyring_unreadable"
    http_status = 503
    default_remedy = "Make the key directory readable for the application again; reading goes on meanwhile."


# --- exit 2: usage --------------------------------------------------------------------------------


class UsageError(NetravenKeysError):
    """The command line or a call's arguments are wrong."""

    code = "usage"
    exit_status = 2
    http_status = 400
    default_remedy = "See `netraven-keys --help`."


class UnknownKey(UsageError):
    """No named key of that name."""

    code = "unknown_key_name"
    http_status = 404
    default_remedy = "`netraven-keys keys list` shows the keys; a new one is declared under `keys:` and made by `init`."


class UnknownVersion(UsageError):
    """The key has no such version."""

    code = "unknown_version"
    http_status = 404
    default_remedy = "`netraven-keys keys list` shows the versions."


class UnknownTarget(UsageError):
    """No target of that name."""

    code = "unknown_target"
    http_status = 404
    default_remedy = "`netraven-keys census` lists the targets; they are declared under `targets:`."


# --- exit 3: incomplete ---------------------------------------------------------------------------


class Incomplete(NetravenKeysError):
    """The work ended with values stale or quarantined, or findings remain."""

    code = "incomplete"
    exit_status = 3
    http_status = 409
    default_remedy = "Mend what is listed, then run the same command again; what is done stays done."


# --- exit 4: refused by a safety gate -------------------------------------------------------------


class Refused(NetravenKeysError):
    """A safety gate said no; nothing was changed."""

    code = "refused"
    exit_status = 4
    http_status = 409


class NotInitialised(Refused):
    """There is no keyring yet."""

    code = "not_initialised"
    default_remedy = "Run `netraven-keys init`."
    default_command = "netraven-keys init"


class KeyringMissing(Refused):
    """There is no keyring, and there may be data that needs one."""

    code = "keyring_missing"
    default_remedy = (
        "Put keyring.json back into the key directory from a copy; a new keyring could not open the data. "
        "If the values named are not of this installation, correct the target."
    )


class RolledBack(Refused):
    """The keyring is older than one that was seen before."""

    code = "rolled_back"
    default_remedy = "Put back the newest keyring.json: an older copy may miss versions that hold data."


class TransitionRefused(Refused):
    """The version may not go to that state from the one it is in (NIST SP 800-57)."""

    code = "transition_refused"
    default_remedy = "`netraven-keys keys show` prints the state; docs/explanation/states.md says what may follow."


class NothingEncrypts(Refused):
    """The key has no active version, so nothing can be encrypted with it."""

    code = "no_active_version"
    default_remedy = "Resume the suspended version (`keys resume`) or activate a staged one (`keys activate`)."


class ColumnTooNarrow(Refused):
    """The column cannot hold our ciphertext."""

    code = "column_too_narrow"


class PreflightRefused(Refused):
    """A target is not in a state in which its values may be rewritten."""

    code = "preflight_refused"


class ConfirmationMissing(Refused):
    """The command needs a reason or a confirmation that was not given."""

    code = "confirmation_missing"


# --- exit 5: busy ---------------------------------------------------------------------------------


class Busy(NetravenKeysError):
    """Another process holds the lock."""

    code = "busy"
    exit_status = 5
    http_status = 423
    default_remedy = "Wait for it to end; it finishes the work by itself. Then run the command again if still needed."


class EpochConflict(Busy):
    """The keyring was changed by another process in between."""

    code = "epoch_conflict"
    default_remedy = "Run the command again; it starts from the present keyring."


# --- exit 6: master key ---------------------------------------------------------------------------


class MasterKeyError(NetravenKeysError):
    """The master key is wrong or out of reach."""

    code = "master_key"
    exit_status = 6
    http_status = 503


class NotMine(MasterKeyError):
    """This master key opens no slot: the wrong one was given. The keyring itself is not in doubt."""

    code = "master_key_wrong"
    default_remedy = "Give the master key the keyring was made with; `netraven-keys master list` shows the slots."


class MasterKeyUnavailable(MasterKeyError):
    """No master key was given, or what provides it cannot be reached."""

    code = "master_key_unavailable"
    default_remedy = "Set the variable or file named under `master_keys:`."


class MasterKeyDamaged(MasterKeyError):
    """A generated master key with a wrong checksum or length: a typing or copying error."""

    code = "master_key_damaged"
    default_remedy = (
        "Copy the generated master key again, whole: it starts with nrk-master-1- and ends in its checksum."
    )


class CorruptSlot(MasterKeyError):
    """What a slot holds is not what a master key can have written."""

    code = "slot_corrupt"
    default_remedy = "Use another slot's master key, or put back a good copy of keyring.json."


# --- exit 78: bad configuration (EX_CONFIG of sysexits.h) -----------------------------------------


class BadConfiguration(NetravenKeysError):
    """The settings are wrong. Nothing was opened, written or connected to."""

    code = "bad_configuration"
    exit_status = 78
    default_remedy = "Correct the settings file; `netraven-keys config check` prints every finding."


class ForbiddenSecret(BadConfiguration):
    """A secret or a place that production does not allow."""

    code = "forbidden_secret"
    default_remedy = (
        "Make a key with `netraven-keys master generate` and give it by file or variable. "
        "NETRAVEN_ENV=dev or test allows development secrets."
    )


class TargetMisdeclared(BadConfiguration):
    """A target names a table or column that is not there or cannot hold ciphertext."""

    code = "target_misdeclared"
    default_remedy = "Correct the target's `table` and `column` in the settings file."


class InsecurePermissions(BadConfiguration):
    """A file or directory with keys is open to others."""

    code = "insecure_permissions"


EXIT_STATUS_MEANINGS: dict[int, str] = {
    0: "done",
    1: "failed (unreachable database, tampered keyring, failed decrypt, broken audit)",
    2: "usage",
    3: "incomplete (values stale, quarantined, or findings remain)",
    4: "refused by a safety gate",
    5: "busy",
    6: "master key wrong or unreachable",
    78: "bad configuration",
    130: "interrupted, resumable",
}
