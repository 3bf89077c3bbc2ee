"""A master key in shares (SLIP-0039): any so many of them make it, fewer make nothing.

The scheme itself says nothing about a wrong combination that fits together, so the key is only believed
once it has opened a slot. Error messages of the library hold words of shares, and are not shown.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration, MasterKeyDamaged
from netraven_keys.masterkeys.generated import GeneratedMasterKey

ORIGIN = "shamir"
# Each one doubles the work of combining. We write 1; with the 15 that the scheme has room for it takes minutes.
_MAX_EXPONENT: Final = 5


def new_shares(threshold: int, count: int) -> tuple[SecretBytes, list[SecretBytes]]:
    """A new master key and its shares, each 33 words."""
    key = random_key()
    groups = _library().generate_mnemonics(1, [(threshold, count)], key.expose())
    return key, [SecretBytes(words.encode("ascii")) for words in groups[0]]


def combined(shares: Sequence[SecretBytes]) -> SecretBytes:
    """Raises MasterKeyDamaged for too few shares, a misspelled one, and shares of different keys."""
    library = _library()
    texts = [" ".join(share.expose().decode("utf-8", "replace").split()) for share in shares]
    for number, text in enumerate(texts, 1):
        if _share(library, text) is None:
            raise MasterKeyDamaged(
                f"share {number} is damaged: a word or its checksum does not fit",
                remedy="Compare it with the paper, word by word.",
            )
    key = _combined(library, texts)
    if key is None:
        needed = _share(library, texts[0]).member_threshold if texts else 1
        raise MasterKeyDamaged(
            f"these {len(texts)} shares make no key: {needed} different ones of one master key are needed",
            remedy="Give more of them, all of the same master key.",
        )
    return SecretBytes(key)


def shamir_master_key(name: str, shares: Sequence[SecretBytes]) -> GeneratedMasterKey:
    return GeneratedMasterKey(name, combined(shares), origin=ORIGIN)


def threshold_of(share: SecretBytes) -> int | None:
    """How many shares are needed, as one says; None of one that is damaged."""
    found = _share(_library(), " ".join(share.expose().decode("utf-8", "replace").split()))
    return None if found is None else int(found.member_threshold)


def _library() -> Any:
    try:
        return importlib.import_module("shamir_mnemonic")
    except ModuleNotFoundError:
        raise BadConfiguration(
            "shares need the package shamir-mnemonic, which is not installed",
            remedy="pip install 'netraven-keys[shamir]'",
        ) from None


def _share(library: Any, text: str) -> Any:
    """None of one that is damaged, or would cost more than anything we write."""
    try:
        share = library.Share.from_mnemonic(text)
    except library.MnemonicError:
        return None
    return share if share.iteration_exponent <= _MAX_EXPONENT else None


def _combined(library: Any, texts: Sequence[str]) -> bytes | None:
    try:
        key: bytes = library.combine_mnemonics(texts)
    except library.MnemonicError:
        return None
    return key
