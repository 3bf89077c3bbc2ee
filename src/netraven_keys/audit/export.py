"""Audit lines for other programs: CSV (RFC 4180) and CEF (ArcSight Common Event Format, revision 25). Pure.

Somebody's text is in them (`reason`, `who`): a cell that a spreadsheet would run as a formula gets an apostrophe,
and what CEF gives a meaning is escaped.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

COLUMNS = ("seq", "at", "event", "phase", "outcome", "operation", "who", "keyring_id", "epoch")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
SEVERE = ("version.compromised", "version.destroyed", "keyring.rekeyed", "keyring.restored", "key.exported")

Record = Mapping[str, Any]


def details_of(record: Record) -> dict[str, Any]:
    """The members that only this kind of event has."""
    return {name: value for name, value in record.items() if name not in COLUMNS}


def as_csv(records: Iterable[Record]) -> Iterator[str]:
    """Lines with a heading; `details` is JSON."""
    yield _row([*COLUMNS, "details"])
    for record in records:
        details = details_of(record)
        cells = [cell(record.get(column, "")) for column in COLUMNS]
        yield _row([*cells, json.dumps(details, sort_keys=True) if details else ""])


def _row(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()


def cell(value: object) -> str:
    """What a spreadsheet takes for text."""
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def as_cef(records: Iterable[Record], version: str) -> Iterator[str]:
    """One line an event. Severity 3; 5 for what cannot be undone; 7 for what failed."""
    for record in records:
        event, phase = str(record.get("event", "")), str(record.get("phase", ""))
        header = ["CEF:0", "netraven-keys", "netraven-keys", version, f"{event}:{phase}", event, _severity(record)]
        extension = {
            "rt": _milliseconds(str(record.get("at", ""))),
            "suser": record.get("who", ""),
            "externalId": record.get("seq", ""),
            "act": phase,
            "outcome": record.get("outcome", ""),
            "cs1Label": "operation",
            "cs1": record.get("operation", ""),
            "cs2Label": "keyring",
            "cs2": record.get("keyring_id", ""),
            "cn1Label": "epoch",
            "cn1": record.get("epoch", ""),
            "reason": record.get("reason", ""),
            "msg": json.dumps(details_of(record), sort_keys=True),
        }
        spelled = " ".join(f"{name}={_value(value)}" for name, value in extension.items() if value != "")
        yield "|".join([header[0], *map(_field, header[1:])]) + f"|{spelled}\n"


def _severity(record: Record) -> str:
    if record.get("outcome") == "failed":
        return "7"
    return "5" if record.get("event") in SEVERE else "3"


def _milliseconds(at: str) -> str:
    try:
        return str(int(datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() * 1000))
    except ValueError:
        return ""


def _field(text: str) -> str:
    return _one_line(text.replace("\\", "\\\\").replace("|", "\\|"))


def _value(value: object) -> str:
    return _one_line(str(value).replace("\\", "\\\\").replace("=", "\\="))


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
