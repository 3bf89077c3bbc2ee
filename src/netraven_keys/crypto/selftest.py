"""Known answers, computed before anything is opened: what this machine, its libraries included, computes wrongly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from netraven_keys.crypto.aead import Aead, AuthenticationFailed
from netraven_keys.crypto.errors import CryptoUnsound
from netraven_keys.crypto.kdf import derive
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import mac, public_key_of, sign, signature_fits


def check() -> None:
    """Raises CryptoUnsound. Takes about a millisecond."""
    for name, is_right in ANSWERS.items():
        try:
            right = is_right()
        except Exception:  # noqa: BLE001  # whatever a broken library raises, it does not give the answer
            right = False
        if not right:
            raise CryptoUnsound(f"this machine computes {name} wrongly")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text)


def _aead() -> bool:
    """Test case 14 of the GCM specification (McGrew and Viega), and that a changed tag is refused."""
    aead, box = (
        Aead(SecretBytes(bytes(32))),
        bytes(12) + _bytes("cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919"),
    )
    if aead.open(box, b"") != bytes(16) or aead.open(aead.seal(b"x", b"y"), b"y") != b"x":
        return False
    try:
        aead.open(box[:-1] + b"\0", b"")
    except AuthenticationFailed:
        return True
    return False


def _hash() -> bool:
    """FIPS 180-2, appendix B.1."""
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    return hashlib.sha256(b"abc").hexdigest() == known


def _mac() -> bool:
    """RFC 4231, test case 2."""
    known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    return mac(SecretBytes(b"Jefe"), b"what do ya want for nothing?").hex() == known


def _derivation() -> bool:
    """RFC 5869, test case 3."""
    known = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    return derive(SecretBytes(b"\x0b" * 22), "", size=42).expose().hex() == known


def _signature() -> bool:
    """RFC 8032, section 7.1, test 1; and that it fits no other message."""
    seed = SecretBytes(_bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    known = (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    made = sign(seed, b"")
    fits = signature_fits(_bytes(public), made, b"") and not signature_fits(_bytes(public), made, b"x")
    return fits and made.hex() == known and public_key_of(seed).hex() == public


def _stretching() -> bool:
    """RFC 9106, section 5.3: 32 KiB, far below what we accept for a passphrase."""
    argon = Argon2id(
        salt=b"\x02" * 16, length=32, iterations=3, lanes=4, memory_cost=32, ad=b"\x04" * 12, secret=b"\x03" * 8
    )
    known = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    return argon.derive(b"\x01" * 32).hex() == known


ANSWERS: Final[dict[str, Callable[[], bool]]] = {
    "AES-256-GCM": _aead,
    "SHA-256": _hash,
    "HMAC-SHA256": _mac,
    "HKDF-SHA256": _derivation,
    "Ed25519": _signature,
    "Argon2id": _stretching,
}
