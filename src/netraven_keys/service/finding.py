"""What `doctor` finds, and in which order it is said. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from netraven_keys.errors import NetravenKeysError


class Severity(StrEnum):
    """An error stops something or will; a warning is a risk; a note is to be known."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """`command` is what mends it; empty where no command does, and then `remedy` says what does."""

    severity: Severity
    subject: str
    message: str
    command: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return {
            "severity": self.severity.value,
            "subject": self.subject,
            "message": self.message,
            "command": self.command,
            "remedy": self.remedy,
        }


def of_error(subject: str, problem: NetravenKeysError) -> Finding:
    """What a check raised, as a finding."""
    return Finding(Severity.ERROR, subject, problem.message, problem.command, problem.remedy)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; of several with one message, or one shell command, only the first. A command of ours
    may mend several things, and each is named."""
    by_severity = sorted(findings, key=lambda finding: list(Severity).index(finding.severity))
    kept: list[Finding] = []
    for finding in by_severity:
        shell = "" if finding.command.startswith("netraven-keys ") else finding.command
        if not any(f.message == finding.message or (shell and shell == f.command) for f in kept):
            kept.append(finding)
    return kept
