"""What a rotation did, in the shape of DESIGN section 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from netraven_keys.errors import NetravenKeysError
from netraven_keys.rotation.prove import TargetCensus
from netraven_keys.rotation.sweep import QuarantinedValue, Tally


@dataclass(frozen=True)
class KeyReport:
    """One key's rotation or re-encryption. `error` is what ended it early, if anything did."""

    key: str
    from_version: int | None
    to_version: int | None
    tallies: tuple[Tally, ...] = ()
    proof: tuple[TargetCensus, ...] = ()
    already_current: int = 0
    stale_remaining: int = 0
    plaintext_found: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    # False when the census proves nothing: older transactions were open, or not every target was counted.
    proven: bool = True
    # No target is declared or ever was, so there is nothing another run could do.
    without_targets: bool = False
    error: NetravenKeysError | None = None

    @property
    def quarantined(self) -> int:
        return sum(tally.quarantined for tally in self.tallies)

    @property
    def listed(self) -> list[QuarantinedValue]:
        return [value for tally in self.tallies for value in tally.listed]

    @property
    def complete(self) -> bool:
        """The census found nothing readable under an older version, and nothing is in quarantine."""
        return self.error is None and self.proven and self.stale_remaining == 0 and self.quarantined == 0

    @property
    def ended(self) -> bool:
        """Nothing is left that another run could carry over: what is in quarantine blocks completion
        and destruction, but never the next rotation."""
        return self.error is None and (self.proven or self.without_targets) and self.stale_remaining == 0

    @property
    def exit_status(self) -> int:
        if self.error is not None:
            return self.error.exit_status
        return 0 if self.complete else 3

    def to_json(self) -> dict[str, Any]:
        seconds = {name: round(self.seconds.get(name, 0.0), 3) for name in ("total", "backup", "reencrypt", "prove")}
        members: dict[str, Any] = {
            "key": self.key,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "rows": {
                "re_encrypted": sum(t.re_encrypted for t in self.tallies),
                "already_current": self.already_current,
                "skipped_conflict": sum(t.skipped_conflict for t in self.tallies),
                "quarantined": self.quarantined,
                "plaintext_found": self.plaintext_found,
                "stale_remaining": self.stale_remaining,
            },
            "seconds": seconds,
            "complete": self.complete,
            "quarantined": [
                {"target": v.target, "row": v.row, "reason": v.reason, "detail": v.detail} for v in self.listed
            ],
            "converted": _summed([t.converted for t in self.tallies]),
            "wrapped_twice": sum(t.wrapped_twice for t in self.tallies),
            "census": [census.to_json(self._quarantined_in(census.name)) for census in self.proof],
            "notes": list(self.notes),
        }
        if self.error is not None:
            members["error"] = error_json(self.error)
        return members

    def _quarantined_in(self, target: str) -> int:
        return sum(t.quarantined for t in self.tallies if t.target == target)


def _summed(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            total[name] = total.get(name, 0) + number
    return total


def error_json(error: NetravenKeysError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "remedy": error.remedy}


# Of several keys, the first of these that applies (DESIGN section 6).
_PRECEDENCE = (6, 1, 4, 5, 3, 78, 2)


def exit_status_of(reports: Sequence[KeyReport]) -> int:
    found = {report.exit_status for report in reports}
    return next((status for status in _PRECEDENCE if status in found), 0)


def reports_json(reports: Sequence[KeyReport]) -> dict[str, Any]:
    return {"complete": all(report.complete for report in reports), "keys": [r.to_json() for r in reports]}
