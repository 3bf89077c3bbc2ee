"""The settings file as plain values, each with the line it came from. Safe YAML only.

Repeated settings are errors (YAML keeps the last one silently), anchors and tags are refused, and
`${VARIABLE}`, `${VARIABLE:?}` are filled in from the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from netraven_keys.config.world import World
from netraven_keys.crypto.fields import utf8
from netraven_keys.errors import BadConfiguration

MAX_FILE = 1024 * 1024
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:\?[^}]*)?\}|\$\{[^}]*\}?", re.ASCII)

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """`lines` gives the line of each setting by its path, `filled` the variable it was filled from, and
    `unset` the variable that is missing (lenient reading only; the setting is then None)."""

    place: str
    values: dict[str, Any]
    lines: dict[Path_, int]
    filled: dict[Path_, str]
    unset: dict[Path_, str]

    def where(self, path: Path_) -> str:
        """The file and line of a setting, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.place}, line {self.lines[path]}" if path in self.lines else self.place


def read_document(path: Path, world: World, *, lenient: bool = False) -> Document:
    """Raises BadConfiguration. `lenient` lets variables be unset, for a reader of a few settings."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError:
        raise BadConfiguration(
            f"the settings file {path} cannot be read",
            remedy="Name it with --config PATH or CONFIG_FILE; `netraven-keys demo` makes an example.",
        ) from None
    if len(content) > MAX_FILE:
        raise BadConfiguration(f"the settings file {path} is larger than 1 MiB")
    return parse_document(content, str(path), world, lenient=lenient)


def parse_document(content: bytes, place: str, world: World, *, lenient: bool = False) -> Document:
    try:
        node = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        said = getattr(problem, "problem", None)
        what = f": {said}" if isinstance(said, str) else ""
        raise BadConfiguration(f"{place}{line}: not valid YAML{what}", remedy="Correct the file's syntax.") from None
    reader = _Reader(place, world, lenient)
    values = {} if node is None else reader.value(node, ())
    if not isinstance(values, dict):
        raise BadConfiguration(f"{place}: the settings must be a mapping")
    return Document(place, values, reader.lines, reader.filled, reader.unset)


class _Reader:
    def __init__(self, place: str, world: World, lenient: bool) -> None:
        self._place, self._world, self._lenient = place, world, lenient
        self._seen: set[int] = set()
        self.lines: dict[Path_, int] = {}
        self.filled: dict[Path_, str] = {}
        self.unset: dict[Path_, str] = {}

    def value(self, node: yaml.Node, path: Path_) -> Any:
        if id(node) in self._seen:
            raise self._error(node, "anchors and aliases are not used here")
        self._seen.add(id(node))
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key_node, value_node in node.value:
            name = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(name, str) or name == "<<":
                raise self._error(key_node, "a setting's name must be plain text")
            if name in members:
                raise self._error(key_node, f"{'.'.join(map(str, (*path, name)))} is set twice")
            self.lines[(*path, name)] = key_node.start_mark.line + 1
            members[name] = self.value(value_node, (*path, name))
        return members

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        if node.tag not in _TAGS:
            raise self._error(node, "a value must be text, a number, true, false or null")
        if node.tag == "tag:yaml.org,2002:str":
            return self._filled_in(node, path)
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, OverflowError):  # as of `!!bool x` and `!!int ""`
            raise self._error(node, "a value that cannot be read") from None
        finally:
            loader.dispose()

    def _filled_in(self, node: yaml.Node, path: Path_) -> str | None:
        def fill(found: re.Match[str]) -> str:
            name = found[1]
            if name is None:
                raise self._error(node, "write a variable as ${NAME} or ${NAME:?}")
            value = self._world.get(name)
            if self._lenient and not value:
                self.unset[path] = name
                return ""
            if value is None or (found[2] and not value):
                raise BadConfiguration(
                    f"{self._place}, line {node.start_mark.line + 1}: the variable {name} is not set",
                    remedy=f"Set {name}, or {name}_FILE to a file that holds it.",
                )
            self.filled[path] = name
            return value

        text = _VARIABLE.sub(fill, str(node.value))
        return None if path in self.unset else text

    def _error(self, node: yaml.Node, message: str) -> BadConfiguration:
        return BadConfiguration(f"{self._place}, line {node.start_mark.line + 1}: {message}")


_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))

PREFIX = "NETRAVEN_KEYS__"


def overlaid(document: Document, world: World) -> Document:
    """The document with settings from `NETRAVEN_KEYS__SECURITY__KEY_ROTATION__KEY_PATH=...` laid over it.

    A value is read as YAML, so lists and numbers can be given. `filled` names the variable of each.
    """
    values, filled, unset = _copied(document.values), dict(document.filled), dict(document.unset)
    for name in sorted(world.variables):
        if not name.startswith(PREFIX):
            continue
        path = tuple(part.lower() for part in name[len(PREFIX) :].split("__"))
        if not all(path):
            raise BadConfiguration(f"the variable {name} names no setting")
        text = utf8(f"value: {world.variables[name]}")
        if text is None:
            raise BadConfiguration(f"the variable {name} is not UTF-8 text")
        given = parse_document(text, f"the variable {name}", world)
        _put(values, path, given.values["value"], name)
        filled[path] = name
        unset.pop(path, None)
    return Document(document.place, values, document.lines, filled, unset)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(member) for name, member in value.items()}
    return list(value) if isinstance(value, list) else value


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any, name: str) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise BadConfiguration(f"the variable {name} goes into {part!r}, which is not a group of settings")
        values = inner
    values[path[-1]] = value
