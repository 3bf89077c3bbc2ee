"""What all groups of settings have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """Strict: a number in quotes is not a number, and an unknown setting is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
