"""audit show, verify, export, key, prove."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from netraven_keys import __version__
from netraven_keys.audit import export
from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, common_options, verb
from netraven_keys.cli.times import typed_time
from netraven_keys.errors import StorageFailed, UsageError
from netraven_keys.evidence.record import in_words
from netraven_keys.service import audit_trail

_LIMIT = 1024 * 1024
_SHOWN = 50


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @group.group("audit")
    @common_options
    def audit_group() -> None:
        """The record of every change, and proofs that it is whole."""

    _add_lines(audit_group)
    _add_verify(audit_group)
    _add_proofs(audit_group)


def _read(path: str) -> bytes:
    """Raises UsageError, StorageFailed."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_LIMIT)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", remedy="Name the file that was kept.") from None
    except OSError as problem:
        raise StorageFailed(f"{path} cannot be read: {problem.strerror}") from None


def _recorded(record: dict[str, Any]) -> datetime | None:
    """None of a line that has no time: `verify` names it."""
    try:
        return datetime.fromisoformat(str(record.get("at", "")).replace("Z", "+00:00"))
    except ValueError:
        return None


def _chosen(
    run: Invocation, since: str | None, until: str | None, event: str | None, key: str | None
) -> Iterator[dict[str, Any]]:
    first = None if since is None else typed_time(since)
    last = None if until is None else typed_time(until, end_of_day=True)
    operations: set[str] = set()  # of the key: a result does not name it
    for record in audit_trail.records(run.installation()):
        at = _recorded(record)
        if key is not None and record.get("key") == key:
            operations.add(str(record.get("operation")))
        if (first is not None and at is not None and at < first) or (last is not None and at is not None and at > last):
            continue
        if event is not None and not str(record.get("event", "")).startswith(event):
            continue
        if key is not None and str(record.get("operation")) not in operations:
            continue
        yield record


def _filters(command: Any) -> Any:
    since = click.option("--since", metavar="TIME", help="From this day or time on, UTC.")
    until = click.option("--until", metavar="TIME", help="Up to this day or time.")
    event = click.option(
        "--event", metavar="NAME", help="Of this kind, or kinds that begin so: version, backup.written."
    )
    key = click.option("--key", metavar="KEY", help="About this key.")
    return since(until(event(key(command))))


def _add_lines(group: click.Group) -> None:
    @verb(group, "show")
    @_filters
    @click.option("--all", "everything", is_flag=True, help=f"Every line, not the last {_SHOWN}.")
    def show_(
        run: Invocation, since: str | None, until: str | None, event: str | None, key: str | None, everything: bool
    ) -> int:
        """What was done, by whom, and how it ended. Unverified: `audit verify` says whether it is whole."""
        shown: deque[dict[str, Any]] = deque(maxlen=None if everything else _SHOWN)
        count = 0
        for record in _chosen(run, since, until, event, key):
            shown.append(record)
            count += 1
        if run.json:
            show.as_json({"lines": list(shown), "left_out": count - len(shown)})
            return 0
        rows: list[tuple[str, ...]] = [("line", "time (UTC)", "event", "ended", "who", "about")]
        for record in shown:
            about = ", ".join(f"{name} {_spelled(value)}" for name, value in export.details_of(record).items())
            ended = record.get("outcome", "") if record.get("phase") == "result" else "begun"
            at = str(record.get("at", ""))[:19].replace("T", " ")
            cells = (record.get("seq", ""), at, record.get("event", ""), ended, record.get("who", ""), about)
            rows.append(tuple(show.safe(str(cell)) for cell in cells))
        show.table(rows, indent="", right=(0,))
        if count > len(shown):
            show.note(f"{show.plural(count - len(shown), 'earlier line')} left out: --all shows them")
        return 0

    @verb(group, "export")
    @_filters
    @click.option(
        "--format",
        "form",
        type=click.Choice(["json", "csv", "cef"]),
        default="json",
        show_default=True,
        help="Of stdout.",
    )
    def export_(
        run: Invocation, since: str | None, until: str | None, event: str | None, key: str | None, form: str
    ) -> int:
        """The lines for another program: one JSON object, CSV with a heading, or CEF."""
        found = _chosen(run, since, until, event, key)
        if form == "json" or run.json:
            show.as_json({"lines": list(found)})
            return 0
        for text in export.as_csv(found) if form == "csv" else export.as_cef(found, __version__):
            sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.flush()
        return 0


def _spelled(value: object) -> str:
    return " ".join(map(_word, value)) if isinstance(value, list) else str(value)


def _word(value: object) -> str:
    """A count as words, where it is one that we wrote."""
    if not isinstance(value, dict):
        return str(value)
    try:
        return f"{value['name']} ({in_words(value)})"
    except (KeyError, TypeError, ValueError, AttributeError):
        return str(value)


def _add_verify(group: click.Group) -> None:
    @verb(group)
    @click.option("--key", "given", metavar="VERIFIER_KEY", help="What `audit key` printed, kept elsewhere.")
    @click.option("--from", "kept", metavar="FILE", multiple=True, help="A checkpoint that was kept elsewhere.")
    @click.option("--proof", metavar="FILE", help="Check this proof by --key alone, without the log.")
    def verify(run: Invocation, given: str | None, kept: tuple[str, ...], proof: str | None) -> int:
        """Is the log whole, and what it was when its checkpoints were signed? Needs no master key."""
        brought = [(path, _read(path)) for path in kept]
        if proof is not None:
            return _verify_proof(run, proof, given, [note for _, note in brought])
        found = audit_trail.verify(run.installation(), given, brought)
        if run.json:
            show.as_json(_verified_json(found))
        else:
            _print_verified(found)
        return 1 if found.examined.findings else 0


def _verify_proof(run: Invocation, proof: str, given: str | None, kept: list[bytes]) -> int:
    if given is None or len(kept) > 1:
        raise UsageError(
            "a proof is checked by the verifier key alone",
            remedy="Give --key, and for a proof of growth the one checkpoint it begins at (--from).",
        )
    found = audit_trail.read_proof(_read(proof), given, kept[0] if kept else None)
    if run.json:
        show.as_json({"proven": found})
    elif "line" in found:
        show.line(show.good(f"line {found['line']} is in the log of {found['of']} lines:"))
        show.line(show.safe(found["text"]))
    else:
        show.line(show.good(f"the log of {found['of']} lines begins with the {found['from']} lines of the checkpoint"))
    return 0


def _verified_json(found: audit_trail.Verified) -> dict[str, Any]:
    examined = found.examined
    return {
        "whole": not examined.findings,
        "lines": examined.size,
        "covered": examined.covered,
        "torn_bytes": examined.torn,
        "checkpoints": found.checkpoints,
        "key_kept_elsewhere": found.key.kept,
        "checkpoints_by_other_keys": found.left_out,
        "unfinished": list(examined.unfinished),
        "other_logs": list(found.others),
        "unused": list(found.unused),
        "findings": [{"what": f.what, "line": f.line, "text": f.text} for f in examined.findings],
    }


def _print_verified(found: audit_trail.Verified) -> None:
    examined = found.examined
    for finding in examined.findings:
        show.line(show.bad(show.safe(finding.text)))
    if not examined.findings:
        show.line(
            show.good(f"whole: {show.plural(examined.size, 'line')}, of which {examined.covered} are under a signature")
        )
    show.line(f"  {show.plural(found.checkpoints, 'checkpoint')} read")
    if examined.torn:
        show.line(
            f"  {examined.torn} bytes of a line that a crash cut short are at the end; the next change drops them"
        )
    for number in examined.unfinished:
        show.line(f"  line {number} was begun and has no result: it runs now, or its process died")
    if found.left_out:
        show.line(f"  {show.plural(found.left_out, 'checkpoint')} left out: by another key of this log, from before or")
        show.line("  after a rekey. `audit key` prints the present one, to be kept in place of the one before")
    for text in found.unused:
        show.line(f"  {show.safe(text)}")
    for log in found.others:
        show.line(f"  of another log of this keyring checkpoints are kept: {log}")
    if not found.key.kept:
        show.note(
            "by the key in keyring.json; with --key, what `audit key` printed once, nobody can have put in another"
        )


def _add_proofs(group: click.Group) -> None:
    @verb(group, "key")
    def key_(run: Invocation) -> int:
        """The verifier key of the log (C2SP signed-note), to be kept away from this machine."""
        text = audit_trail.printed_key(run.installation())
        if run.json:
            show.as_json({"verifier_key": text})
        else:
            show.line(text)
        return 0

    @verb(group)
    @click.argument("line", type=click.IntRange(0), required=False)
    @click.option("--from", "kept", metavar="FILE", help="Prove that the log only grew since this checkpoint.")
    def prove(run: Invocation, line: int | None, kept: str | None) -> int:
        """A proof of one line, or of growth since a checkpoint, for somebody who has the verifier key only."""
        if (line is None) is (kept is None):
            raise UsageError("a proof is of one line or since one checkpoint", remedy="Give LINE, or --from FILE.")
        inst = run.installation()
        proof = (
            audit_trail.prove_growth(inst, _read(kept)) if kept is not None else audit_trail.prove_line(inst, line or 0)
        )
        if run.json:
            show.as_json({"proof": proof.decode("utf-8")})
        else:
            show.line(proof.decode("utf-8").removesuffix("\n"))
        return 0
