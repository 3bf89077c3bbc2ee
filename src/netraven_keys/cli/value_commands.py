"""encrypt and decrypt: stdin to stdout, byte for byte."""

from __future__ import annotations

import sys

import click

from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, verb
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.token import MAX_PLAINTEXT
from netraven_keys.errors import MalformedValue, PlaintextUnsupported
from netraven_keys.service import single_value

_TOKEN_LIMIT = 2 * MAX_PLAINTEXT


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""
    key = click.option("--key", metavar="NAME", default="credentials", show_default=True, help="The named key.")
    table = click.option("--table", metavar="TABLE", required=True, help="The table, as the target writes it.")
    column = click.option("--column", metavar="COLUMN", required=True, help="The column.")
    row = click.option(
        "--row",
        metavar="PART",
        multiple=True,
        help="The primary key where `bind: row`; once per part, UUIDs of uuid columns as 32 hex digits.",
    )

    @verb(group)
    @key
    @table
    @column
    @row
    def encrypt(run: Invocation, key: str, table: str, column: str, row: tuple[str, ...]) -> int:
        """Encrypt stdin to stdout.

        With the key's primary, for one table and column.
        """
        inst = run.installation()
        plaintext = SecretBytes(_stdin(MAX_PLAINTEXT))
        token = single_value.encrypt(inst, key, plaintext, table=table, column=column, row=row or None)
        if run.json:
            show.as_json({"token": token})
        else:
            show.line(token)
        return 0

    @verb(group)
    @key
    @table
    @column
    @row
    def decrypt(run: Invocation, key: str, table: str, column: str, row: tuple[str, ...]) -> int:
        """Decrypt a token from stdin.

        The plaintext goes to stdout, with nothing added to it.
        """
        inst = run.installation()
        given = _stdin(_TOKEN_LIMIT)
        try:
            token = given.removesuffix(b"\n").decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedValue("what came on stdin is not text") from None
        plaintext = single_value.decrypt(inst, key, token, table=table, column=column, row=row or None)
        if run.json:
            show.as_json({"plaintext": plaintext.expose().decode("utf-8", "surrogateescape")})
        else:
            sys.stdout.buffer.write(plaintext.expose())
            sys.stdout.buffer.flush()
        return 0


def _stdin(limit: int) -> bytes:
    content = sys.stdin.buffer.read(limit + 1)
    if len(content) > limit:
        raise PlaintextUnsupported(f"more than {limit} bytes came on stdin")
    return content
