"""What an application imports: the keyring in its own process.

from netraven_keys.client import open_keyring

keys = open_keyring("config/key_rotation.yaml")
token = keys.encrypt("credentials", "s3cret", table="credentials", column="password")
plain = keys.decrypt(token, table="credentials", column="password")
"""

from __future__ import annotations

from netraven_keys.client.keyring import ApplicationKeyring, open_keyring

__all__ = ["ApplicationKeyring", "open_keyring"]
