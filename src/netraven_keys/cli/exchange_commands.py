"""keys import, export, wrapping-key."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, ask, verb
from netraven_keys.config.world import read_secret_file
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import StorageFailed, UsageError
from netraven_keys.keyring import tink
from netraven_keys.sealing.age import AgeSealer
from netraven_keys.service import exchange
from netraven_keys.storage import durable

_LIMIT = 1024 * 1024


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file, under `keys`."""
    _add_import(group)
    _add_export(group)
    _add_wrapping_key(group)


def _add_import(group: click.Group) -> None:
    @verb(group, "import")
    @click.argument("key")
    @click.argument("file", default="-")
    @click.option("--reason", metavar="TEXT", default="imported", show_default=True, help="For the record.")
    @click.option("--token", metavar="PATH", help="FILE was wrapped with the public key that this token belongs to.")
    def import_(run: Invocation, key: str, file: str, reason: str, token: str | None) -> int:
        """Stage material that was made elsewhere: 32 raw bytes, or a cleartext Tink keyset.

        From FILE or stdin. Of a keyset the primary is staged; the others are only to decrypt with.
        """
        inst = run.installation()
        content = SecretBytes(_read(file))
        if token is not None:
            content = exchange.unwrapped(inst, content.expose(), read_secret_file(Path(token), "--token"))
        numbers = exchange.import_keys(inst, key, tink.imported(content), reason)
        if run.json:
            show.as_json({"key": key, "versions": list(numbers)})
        else:
            show.line(f"{key} v{numbers[-1]} is staged" + _others(numbers[:-1]))
            show.line(f"  next: netraven-keys keys activate {key} v{numbers[-1]}, then netraven-keys rotate")
        return 0


def _add_export(group: click.Group) -> None:
    @verb(group, "export")
    @click.argument("key")
    @click.option("--out", metavar="FILE", required=True, help="A new file for the sealed keyset.")
    @click.option("--reason", metavar="TEXT", default="", help="Why; required.")
    @click.option("--recipient", "recipients", metavar="KEY", multiple=True, help="A public key of age or ssh.")
    @click.option("--password-file", metavar="PATH", help="File with a password.  [default: a prompt]")
    def export(
        run: Invocation, key: str, out: str, reason: str, recipients: tuple[str, ...], password_file: str | None
    ) -> int:
        """Write a Tink keyset of every version that decrypts, sealed with age.

        For recipients, or with a password. `age -d` opens it; any Tink library reads what is inside.
        """
        password = None if recipients and password_file is None else _password(password_file)
        sealer = AgeSealer(lambda: password, recipients)
        sealer.check()
        if Path(out).exists():
            raise UsageError(f"{out} exists and is not overwritten", remedy="Name a new file.")
        keyset, count = exchange.export_keys(run.installation(), key, reason)
        sealed = sealer.seal(keyset)
        kind = "recipients" if recipients else "passphrase"
        durable.write_new(Path(out), sealed[kind])
        if run.json:
            show.as_json({"key": key, "versions": count, "file": out})
        else:
            show.line(f"{show.plural(count, 'version')} of {key} are in {out}: whoever opens it reads their values")
        return 0


def _add_wrapping_key(group: click.Group) -> None:
    @verb(group, "wrapping-key")
    @click.option("--out", metavar="FILE", required=True, help="A new file for the public key (PEM).")
    @click.option("--token", metavar="FILE", required=True, help="A new file for the token to import with.")
    def wrapping_key(run: Invocation, out: str, token: str) -> int:
        """Make a public RSA key to wrap material with, for `keys import --token`.

        Wrap 32 raw bytes with RSA-OAEP and SHA-256. The token opens only at this keyring.
        """
        made = exchange.new_wrapping_key(run.installation())
        for path, content in ((out, made.public_pem), (token, made.token.encode("ascii") + b"\n")):
            try:
                durable.write_new(Path(path), content)
            except FileExistsError:
                raise UsageError(f"{path} exists and is not overwritten", remedy="Name a new file.") from None
        if run.json:
            show.as_json({"public_key": out, "token": token})
        else:
            show.line(f"the public key is in {out}, its token in {token}")
            show.line(f"  wrap:   openssl pkeyutl -encrypt -pubin -inkey {out} -in KEY.bin -out KEY.wrapped \\")
            show.line("            -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256")
            show.line(f"  import: netraven-keys keys import NAME KEY.wrapped --token {token}")
        return 0


def _others(numbers: tuple[int, ...]) -> str:
    if not numbers:
        return ""
    names = ", ".join(f"v{number}" for number in numbers)
    return f"; {names} {'is' if len(numbers) == 1 else 'are'} only to decrypt with"


def _read(file: str) -> bytes:
    """Raises UsageError, StorageFailed."""
    if file == "-":
        content = sys.stdin.buffer.read(_LIMIT + 1)
    else:
        try:
            with Path(file).open("rb") as opened:
                content = opened.read(_LIMIT + 1)
        except FileNotFoundError:
            raise UsageError(f"there is no file {file}") from None
        except OSError as problem:
            raise StorageFailed(f"{file} cannot be read: {problem.strerror}") from None
    if len(content) > _LIMIT:
        raise UsageError("what is imported is larger than any keyset")
    return content


def _password(password_file: str | None) -> SecretBytes:
    """Raises UsageError where there is neither a file nor a terminal to ask on."""
    text = ask("Password for the export", True) if password_file is None else _from(password_file)
    if not text:
        raise UsageError("an export needs a password or recipients", remedy="Add --password-file or --recipient.")
    return SecretBytes(text.encode("utf-8"))


def _from(password_file: str) -> str:
    return read_secret_file(Path(password_file), "--password-file")
