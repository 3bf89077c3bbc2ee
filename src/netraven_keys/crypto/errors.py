"""The error of a machine that must not be trusted with keys."""

from __future__ import annotations

from netraven_keys.errors import NetravenKeysError


class CryptoUnsound(NetravenKeysError):
    """This machine computes a known answer wrongly, or its random generator fails or repeats itself."""

    code = "crypto_unsound"
    default_remedy = "Nothing was changed. Do not use this machine for keys before its fault is found and mended."
