"""What can be wrong with a backup."""

from __future__ import annotations

from netraven_keys.errors import MasterKeyError, NetravenKeysError


class BackupFailed(NetravenKeysError):
    """A backup could not be made, written or checked."""

    code = "backup_failed"
    default_remedy = "Mend what is named above; nothing was changed. `netraven-keys backup create` tries it alone."


class BackupDamaged(NetravenKeysError):
    """A file is no backup, or not as it was written."""

    code = "backup_damaged"
    default_remedy = "Use another backup: `netraven-keys backup list` shows them, `backup verify` checks them."


class BackupLocked(MasterKeyError):
    """A backup does not open with the password or the identities given."""

    code = "backup_locked"
    default_remedy = (
        "Give the password it was sealed with (NETRAVEN_BACKUP_PASSWORD_FILE, or --password-file), or the secret key "
        "of one of its recipients (--identity FILE)."
    )
