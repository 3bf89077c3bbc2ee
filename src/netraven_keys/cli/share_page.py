"""A page to print: one sheet for each share, with its words and a QR code. Opens without a network."""

from __future__ import annotations

import html
import importlib
from collections.abc import Sequence

from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import BadConfiguration

_STYLE = """
body { font: 12pt/1.5 sans-serif; margin: 0; color: #000; background: #fff; }
section { padding: 18mm; page-break-after: always; break-after: page; }
section:last-child { page-break-after: auto; break-after: auto; }
h1 { font-size: 16pt; margin: 0 0 4mm; }
ol { columns: 3; font: 12pt/1.7 monospace; padding-left: 9mm; }
svg { width: 62mm; height: 62mm; }
"""


def page(name: str, keyring_fingerprint: str, threshold: int, shares: Sequence[SecretBytes]) -> bytes:
    """Raises BadConfiguration where the package for QR codes is missing."""
    sheets = "".join(
        _sheet(name, keyring_fingerprint, threshold, len(shares), number, share)
        for number, share in enumerate(shares, 1)
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>Shares of {html.escape(name)}</title><style>{_STYLE}</style></head>\n<body>{sheets}</body></html>\n"
    ).encode()


def _sheet(name: str, fingerprint: str, threshold: int, count: int, number: int, share: SecretBytes) -> str:
    words = share.expose().decode("ascii")
    listed = "".join(f"<li>{html.escape(word)}</li>" for word in words.split())
    return (
        f"<section><h1>Share {number} of {count}: master key {html.escape(name)}</h1>"
        f"<p>Keyring <b>{html.escape(fingerprint)}</b>. Any {threshold} of the {count} shares open it; fewer open "
        "nothing. Keep this sheet where no other share is, and tell nobody its words.</p>"
        f"<ol>{listed}</ol>{_qr(words)}"
        "<p>To use it: <code>master_keys: - {name: "
        f"{html.escape(name)}, provider: shamir}}</code>, and the words are asked for.</p></section>\n"
    )


def _qr(text: str) -> str:
    try:
        segno = importlib.import_module("segno")
    except ModuleNotFoundError:
        raise BadConfiguration(
            "a page with QR codes needs the package segno, which is not installed",
            remedy="pip install 'netraven-keys[shamir]'; or leave out --page.",
        ) from None
    svg: str = segno.make(text, error="m", micro=False).svg_inline(scale=3, border=2)
    return svg
