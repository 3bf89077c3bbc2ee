"""The report as one page of HTML: opens without a network, runs nothing, prints on A4 and Letter.

It is made of the signed payload alone, so that whoever has the payload can make it again and compare.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2

from netraven_keys.evidence import record
from netraven_keys.evidence.statement import NotEvidence

_STATEMENT = re.compile(r'<script type="application/vnd\.dsse\+json" id="statement">\n(.*?)</script>', re.DOTALL)
# Requirement, what it is about in our own words, and where this report speaks of it. Sources: PCI DSS v4.0.1
# requirement 3.7; ISO/IEC 27001:2022 Annex A; AICPA Trust Services Criteria 2017 (points of focus 2022).
_REQUIREMENTS = (
    ("PCI DSS 3.7.1", "strong keys are generated", (("keys", "Keys"),)),
    ("PCI DSS 3.7.2", "keys are distributed securely", (("access", "Access"),)),
    ("PCI DSS 3.7.3", "keys are stored securely", (("keys", "Keys"), ("backups", "Backups"))),
    ("PCI DSS 3.7.4", "keys are changed at the end of their cryptoperiod", (("rotations", "Rotations"),)),
    (
        "PCI DSS 3.7.5",
        "keys are retired, replaced or destroyed when they are old, weakened or known",
        (("rotations", "Rotations"), ("keys", "Keys"), ("exceptions", "Exceptions")),
    ),
    ("PCI DSS 3.7.6", "split knowledge where people handle keys in the clear", (("access", "Access"),)),
    ("PCI DSS 3.7.7", "nobody can put another key in a key's place", (("integrity", "Integrity"),)),
    ("ISO/IEC 27001 A.8.24", "rules for the use of cryptography and its keys are followed", (("keys", "Keys"),)),
    ("ISO/IEC 27001 A.8.13", "backups are kept and tested", (("backups", "Backups"),)),
    ("ISO/IEC 27001 A.8.15", "what was done is logged, and the log is protected", (("record", "Record"),)),
    ("SOC 2 CC6.1", "encryption keys are protected over their life", (("keys", "Keys"), ("access", "Access"))),
    ("SOC 2 A1.3", "recovery is tested", (("backups", "Backups"),)),
)


def page(payload: bytes, predicate: Mapping[str, Any], envelope: bytes) -> str:
    """`payload` is what `envelope` signs, `predicate` the report in it. Raises NotEvidence where a line is of no shape
    that we write."""
    try:
        text = _environment().get_template("page.html.j2").render(**_view(payload, predicate), envelope=_data(envelope))
    except (KeyError, TypeError, ValueError, AttributeError, jinja2.UndefinedError):
        raise NotEvidence("a line in it is not as an audit line is") from None
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # a reason may hold bytes that are no text


def _data(envelope: bytes) -> str:
    """As it stands within a script element: JSON and base64 have no `<` of their own."""
    return envelope.decode("ascii").replace("<", "\\u003c")


def statement_in(content: bytes) -> bytes:
    """The envelope that a page carries. Raises NotEvidence."""
    found = _STATEMENT.search(content.decode("utf-8", "replace"))
    if found is None:
        raise NotEvidence("it carries no signed statement")
    return found[1].encode("utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("netraven_keys.evidence", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(when=_when, day=_day, count=_count, versions=record.in_words)
    return environment


def _when(at: str | None) -> str:
    """To the second, UTC."""
    return at[:19].replace("T", " ") if at else "–"


def _day(at: str | None) -> str:
    return at[:10] if at else "–"


def _count(number: int | None) -> str:
    return "not counted" if number is None else f"{number:,}"


def _view(payload: bytes, predicate: Mapping[str, Any]) -> dict[str, Any]:
    log = predicate["log"]
    numbered = enumerate(log["lines"], log["first_line"])
    acts = record.acts_of((number, json.loads(line)) for number, line in numbered)
    good = [act for act in acts if act.is_done]
    return {
        "report": predicate,
        "acts": acts,
        "about": record.about,
        "written": [act for act in good if act.event == "backup.written"],
        "drills": [act for act in acts if act.event == "backup.drilled"],
        "destroyed": [act for act in good if act.event == "version.destroyed"],
        "counts": [act for act in acts if "census" in act.found],
        "monthly": [(act, census) for act, census in record.last_counts(acts, lambda act: act.month).values()],
        "changed_access": [act for act in acts if act.event.startswith(("slot.", "keyring.", "key.exp", "key.imp"))],
        "destructions": [act for act in acts if act.event.startswith("version.destr")],
        "last_line": log["first_line"] + len(log["lines"]) - 1,
        "requirements": _REQUIREMENTS,
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
    }
