"""What a rotation would do, as an object one can print; `--dry-run` prints exactly this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netraven_keys.crypto import token as tokens
from netraven_keys.errors import ColumnTooNarrow
from netraven_keys.ports import TargetFacts

_NO_GATE = "not done (`auto_backup` is off)"


@dataclass(frozen=True)
class TargetPlan:
    name: str
    place: str
    values: int
    to_rewrite: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """`from_version` is None before the first activation. `resumes` says that a rotation is unfinished."""

    key: str
    from_version: int | None
    to_version: int
    creates: bool
    activates: bool
    resumes: bool
    why: str
    propagation_seconds: int
    gated: bool
    targets: tuple[TargetPlan, ...]

    def steps(self) -> list[str]:
        """The numbered steps of DESIGN section 5, in plain words."""
        name = f"{self.key} v{self.to_version}"
        values = sum(target.to_rewrite for target in self.targets)
        done = "already done"
        return [
            "lease        one rotation at a time for this keyring",
            f"preflight    {len(self.targets)} target{'s' * (len(self.targets) != 1)} checked",
            f"create       {f'{name}, pre-active' if self.creates else done}",
            f"back up      {self._gate()}",
            f"wait         {self._waiting(name)}",
            f"activate     {self._activation()}",
            f"re-encrypt   {values:,} value{'s' * (values != 1)} to {name}",
            "prove        census on the primary server",
            f"back up      {'again, with the new states' if self.gated else _NO_GATE}",
            "old          earlier versions stay and decrypt; none is destroyed",
        ]

    def _gate(self) -> str:
        if not self.gated:
            return _NO_GATE
        return "written, opened again and compared, before anything is encrypted" if self.activates else "already done"

    def _waiting(self, name: str) -> str:
        if not self.activates:
            return "already done"
        if not self.propagation_seconds:
            return "not needed (propagation_seconds is 0)"
        return f"{self.propagation_seconds} s for readers to learn of {name}"

    def _activation(self) -> str:
        if not self.activates:
            return "already done"
        if self.from_version is None:
            return f"v{self.to_version} becomes the primary"
        return f"v{self.to_version} becomes the primary, v{self.from_version} is deactivated"

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "resumes": self.resumes,
            "why": self.why,
            "steps": self.steps(),
            "targets": [
                {
                    "name": t.name,
                    "place": t.place,
                    "values": t.values,
                    "to_rewrite": t.to_rewrite,
                    "warnings": list(t.warnings),
                }
                for t in self.targets
            ],
        }


def check_width(name: str, facts: TargetFacts, version: int, longest_ours: int, longest_plaintext: int) -> None:
    """Raises ColumnTooNarrow when the column cannot hold what is in it, encrypted under `version`.

    `longest_ours` is the length of the longest value of ours there, whose label may grow with the
    version; `longest_plaintext` the bytes of the longest value that will be encrypted for the first
    time. At least 16 bytes are assumed, so that a column that could hold no password is refused too.
    """
    if facts.binary or facts.width is None:
        return
    needed = tokens.text_length(version, max(16, longest_plaintext))
    if longest_ours:
        shortest_label = len("nrk:v1:")
        needed = max(needed, longest_ours - shortest_label + len(f"nrk:v{version}:"))
    if needed > facts.width:
        raise ColumnTooNarrow(
            f"target {name!r}: the column holds {facts.width} characters, our ciphertext needs {needed}",
            remedy="Widen it first, for example: ALTER TABLE ... ALTER COLUMN ... TYPE text.",
            command=facts.widening,
        )


def warnings_of(facts: TargetFacts) -> tuple[str, ...]:
    return tuple(f"UPDATE trigger {trigger} runs for each value rewritten" for trigger in facts.update_triggers)
