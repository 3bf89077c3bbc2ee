"""report, report verify."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from netraven_keys import __version__
from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, common_options, verb
from netraven_keys.cli.times import typed_time
from netraven_keys.errors import AuditBroken, BadConfiguration, StorageFailed, UsageError
from netraven_keys.evidence.page import page, statement_in
from netraven_keys.evidence.statement import NotEvidence
from netraven_keys.service import evidence
from netraven_keys.service.evidence import Evidence, Genuine, Period
from netraven_keys.storage import durable

_SOFTWARE = f"netraven-keys {__version__}"
_LIMIT = 256 * 1024 * 1024
_ATTACHED = "evidence.json"


class _Report(click.Group):
    """`report --from DAY` is the verb `make`, which nobody has to type."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = args if args and set(args) & {*self.commands, "-h", "--help"} else ["make", *args]
        return super().parse_args(ctx, given)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["--from DAY [--to DAY] [--output FILE]... | COMMAND [ARGS]..."]


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @group.group("report", cls=_Report)
    @common_options
    def report_group() -> None:
        """Evidence for an auditor: inventory, rotations with their proofs, who did what; signed.

        `report make --help` lists the options of `report --from DAY`.
        """

    _add_make(report_group)
    _add_verify(report_group)


def _add_make(group: click.Group) -> None:
    @verb(group)
    @click.option("--from", "since", metavar="DAY", required=True, help="The first day of the period, or a time; UTC.")
    @click.option("--to", "until", metavar="DAY", help="The last day of it.  [default: now]")
    @click.option(
        "--output", "outputs", metavar="FILE", multiple=True, help="Write it as .html, .pdf or .json; may be repeated."
    )
    @click.option("--force", is_flag=True, help="Overwrite a file that is there.")
    def make(run: Invocation, since: str, until: str | None, outputs: tuple[str, ...], force: bool) -> int:
        """What `report --from DAY` does: the evidence of a period, summed up here and written to the files named.

        All of them carry the same signed statement. --json prints it.
        """
        written = [(Path(name), _form(name)) for name in outputs]
        for path, _ in written:
            _check_free(path, force=force)
        found = evidence.gather(run.installation(), _period(since, until), _SOFTWARE)
        for path, form in written:
            durable.write_whole(path, form(found), mode=0o600)
        if run.json:
            show.as_json(json.loads(found.envelope))
            return 0
        _print(found.predicate)
        for path, _ in written:
            show.line(f"  written: {path}")
        if not written:
            show.note("--output report.html writes it as a page, .pdf as a document, .json as the signed statement")
        return 0


def _period(since: str, until: str | None) -> Period:
    """The day of --to is within it. Raises UsageError."""
    start = typed_time(since)
    if until is None:
        return Period(start, None)
    return Period(start, typed_time(until, end_of_day=True) + timedelta(microseconds=1))


# --- the files ------------------------------------------------------------------------------------


def _form(name: str) -> Callable[[Evidence], bytes]:
    """What makes the file of a name. Raises UsageError, BadConfiguration."""
    forms: dict[str, Callable[[Evidence], bytes]] = {
        ".html": lambda found: _page(found).encode("utf-8"),
        ".pdf": _printed,
        ".json": lambda found: found.envelope,
    }
    suffix = Path(name).suffix.lower()
    if suffix not in forms:
        raise UsageError(
            f"{name!r} does not say what to write", remedy="End it in .html, .pdf or .json: --output report.html"
        )
    if suffix == ".pdf":
        _printer()
    return forms[suffix]


def _check_free(path: Path, *, force: bool) -> None:
    """Raises UsageError, StorageFailed."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", remedy="Name another file, or add --force.")
    if not path.absolute().parent.is_dir():
        raise StorageFailed(f"there is no directory {path.absolute().parent}", remedy="Make it, or name another one.")


def _page(found: Evidence) -> str:
    """Raises AuditBroken."""
    try:
        return page(found.payload, found.predicate, found.envelope)
    except NotEvidence as problem:
        raise AuditBroken(
            f"no page can be made: {problem}",
            remedy="`netraven-keys audit show --all` shows them; .json can be written.",
        ) from None


def _printed(found: Evidence) -> bytes:
    """PDF of the page, with the signed statement attached."""
    library = _printer()
    statement = library.Attachment(string=found.envelope, name=_ATTACHED, description="The report as it was signed")
    document = library.HTML(string=_page(found), url_fetcher=_fetch_nothing)
    content: bytes = document.write_pdf(attachments=[statement], pdf_variant="pdf/ua-1")
    return content


def _fetch_nothing(url: str, *_: Any, **__: Any) -> Any:
    raise ValueError("a report needs nothing from elsewhere")


def _printer() -> Any:
    try:
        return importlib.import_module("weasyprint")
    except (ModuleNotFoundError, OSError):
        raise BadConfiguration(
            "a PDF needs the package weasyprint and the library Pango, which are not installed",
            remedy="pip install 'netraven-keys[pdf]' and, on Debian, apt install libpango-1.0-0 libpangoft2-1.0-0; "
            "or write .html and print it from a browser.",
        ) from None


# --- the terminal ---------------------------------------------------------------------------------


def _print(report: dict[str, Any]) -> None:
    period, log, rotations = report["period"], report["log"], report["rotations"]
    complete = sum(rotation["complete"] for rotation in rotations)
    versions = [version for key in report["keys"] for version in key["versions"]]
    show.line(f"{show.strong('Evidence')} for {_minute(period['from'])} to {_minute(period['to'])} UTC")
    show.line(f"  keyring {report['keyring']['id']}, fingerprint {report['keyring']['fingerprint']}")
    show.line(f"  {show.plural(len(report['keys']), 'key')}, {show.plural(len(versions), 'version')}")
    show.line(f"  audit log whole, {show.plural(len(log['lines']), 'line')} of the period")
    show.line(f"  {show.plural(len(rotations), 'rotation')}, {complete:,} complete")
    for number, one in enumerate(report["exceptions"]):
        if not number:
            show.line(f"  {show.bad(show.plural(len(report['exceptions']), 'exception'))}:")
        where = "" if one["line"] is None else f" (line {one['line']})"
        show.line(f"    - {show.safe(one['text'])}{where}")
    if not report["exceptions"]:
        show.line(f"  {show.good('no exceptions')}")
    for one in report["findings"]:
        show.line(f"  open now: {show.safe(one['text'])}{': ' + one['command'] if one['command'] else ''}")


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


# --- checking -------------------------------------------------------------------------------------


def _add_verify(group: click.Group) -> None:
    @verb(group)
    @click.argument("file")
    @click.option("--key", "given", metavar="VERIFIER_KEY", required=True, help="What `audit key` printed.")
    def verify(run: Invocation, file: str, given: str) -> int:
        """Is a report (.html or .json) what was signed? By the verifier key alone: needs no keyring, no log."""
        content = _read(file)
        is_page = content.startswith(b"<!doctype html>")
        if not is_page and Path(file).suffix.lower() in (".html", ".htm"):
            raise AuditBroken(f"{file} is named like a page and is none of ours", remedy="Ask for a new one.")
        found = evidence.read(_statement(file, content, is_page=is_page), given)
        shows = _shows(content, found) if is_page else None
        if run.json:
            show.as_json({"genuine": shows is not False, "page_compared": shows is not None, **_about(found)})
        else:
            _print_verified(found, shows, is_page=is_page)
        return 1 if shows is False else 0


def _read(file: str) -> bytes:
    """Raises UsageError, StorageFailed."""
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_LIMIT)
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}", remedy="Name the report.") from None
    except OSError as problem:
        raise StorageFailed(f"{file} cannot be read: {problem.strerror}") from None
    if content.startswith(b"%PDF-"):
        raise UsageError(
            f"{file} is a PDF, and what was signed is attached to it",
            remedy=f"Save its attachment {_ATTACHED} (a PDF reader does, or pdfdetach), and verify that.",
        )
    return content


def _statement(file: str, content: bytes, *, is_page: bool) -> bytes:
    """Raises AuditBroken."""
    try:
        return statement_in(content) if is_page else content
    except NotEvidence as problem:
        raise AuditBroken(f"{file} proves nothing: {problem}", remedy="Ask for a new one.") from None


def _shows(content: bytes, found: Genuine) -> bool | None:
    """Whether a page is the one that is made of what was signed; None where another version of us made it."""
    if found.predicate["made"]["software"] != _SOFTWARE:
        return None
    try:
        return page(found.payload, found.predicate, statement_in(content)).encode("utf-8") == content
    except NotEvidence:
        return False


def _about(found: Genuine) -> dict[str, Any]:
    report = found.predicate
    return {
        "period": report["period"],
        "made": report["made"],
        "keyring": report["keyring"],
        "first_line": found.span.first,
        "lines": len(found.span.lines),
        "exceptions": report["exceptions"],
    }


def _print_verified(found: Genuine, shows: bool | None, *, is_page: bool) -> None:
    report = found.predicate
    if shows is False:
        show.line(show.bad("what is signed is genuine, and the page does not show it: the page was changed"))
    else:
        show.line(show.good("genuine: it is what the key has signed"))
    if is_page and shows is None:
        made = show.safe(report["made"]["software"])
        show.line(f"  the page's own text was not compared: {made} made it, and this is {_SOFTWARE}")
    show.line(f"  made {_minute(report['made']['at'])} UTC by {show.safe(report['made']['by'])}")
    show.line(f"  {show.plural(len(found.span.lines), 'line')} of the log from {found.span.first} on, none left out")
    show.line(f"  {show.plural(len(report['exceptions']), 'exception')}")
