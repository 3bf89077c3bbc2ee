"""Step 1: is every target in a state in which its values may be rewritten? Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from netraven_keys.keyring.model import NamedKey
from netraven_keys.ports import Selection, TargetFacts
from netraven_keys.rotation.plan import TargetPlan, check_width, warnings_of
from netraven_keys.rotation.prove import TargetCensus, take_census
from netraven_keys.service.installation import ManagedTarget
from netraven_keys.values.formats import FERNET_START, GEN1_MEMBER, OUR_TEXT, PLAINTEXT

_PLAINTEXT = Selection(but_not=(OUR_TEXT, FERNET_START), but_not_containing=GEN1_MEMBER)


@dataclass(frozen=True)
class Checked:
    """A target that may be swept: what it looks like and what is in it now."""

    managed: ManagedTarget
    facts: TargetFacts
    census: TargetCensus
    converts: bool

    def plan(self, to_version: int) -> TargetPlan:
        left = 0 if self.converts else self.census.plaintext + sum(self.census.legacy.values())
        return TargetPlan(
            name=self.managed.name,
            place=self.managed.target.place,
            values=self.census.total,
            to_rewrite=self.census.not_under(to_version) - left,
            warnings=warnings_of(self.facts),
        )


def check_target(managed: ManagedTarget, key: NamedKey, to_version: int, *, converts: bool) -> Checked:
    """Raises TargetMisdeclared, TargetUnavailable, PreflightRefused, ColumnTooNarrow."""
    target = managed.target
    facts = target.preflight()
    longest_ours = longest_plaintext = 0
    if facts.width is not None:
        longest_ours = target.longest(Selection(only=OUR_TEXT))
        if converts and PLAINTEXT in managed.rules.accept:
            longest_plaintext = target.longest(_PLAINTEXT)
    check_width(managed.name, facts, to_version, longest_ours, longest_plaintext)
    return Checked(managed, facts, take_census(target, key, managed.rules.accept), converts)


def check_declared_width(managed: ManagedTarget, facts: TargetFacts) -> None:
    """What can be said before there is a keyring: a column too narrow for any password is refused."""
    check_width(managed.name, facts, 1, 0, 0)
