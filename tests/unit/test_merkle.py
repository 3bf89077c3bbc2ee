"""The tree over the audit lines is the one of RFC 6962, section 2.1."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netraven_keys.audit.chain import Tree, leaf_hash, node_hash

SIZES = range(71)


def merkle_tree_hash(entries: Sequence[bytes]) -> bytes:
    """MTH, written down as RFC 6962 defines it."""
    n = len(entries)
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while 2 * k < n:
        k *= 2
    return hashlib.sha256(b"\x01" + merkle_tree_hash(entries[:k]) + merkle_tree_hash(entries[k:])).digest()


def tree_of(lines: Sequence[bytes]) -> Tree:
    tree = Tree()
    for line in lines:
        tree.add(line)
    return tree


def lines_of(size: int) -> list[bytes]:
    return [f'{{"event": "rotate", "number": {number}}}'.encode() for number in range(size)]


# The entries and tree heads that the implementations of Certificate Transparency test themselves with.
KNOWN_ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
KNOWN_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def test_the_known_values_are_all_there() -> None:
    assert (len(KNOWN_ENTRIES), len(KNOWN_ROOTS)) == (8, 9)


@pytest.mark.parametrize("size", range(9))
def test_the_known_trees_have_the_known_heads(size: int) -> None:
    assert tree_of(KNOWN_ENTRIES[:size]).root().hex() == KNOWN_ROOTS[size]
    assert merkle_tree_hash(KNOWN_ENTRIES[:size]).hex() == KNOWN_ROOTS[size]


def test_the_head_of_an_empty_tree_is_the_hash_of_nothing() -> None:
    assert Tree().size == 0
    assert Tree().root() == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", SIZES)
def test_the_head_is_the_one_of_the_definition(size: int) -> None:
    tree = tree_of(lines_of(size))
    assert tree.size == size
    assert tree.root() == merkle_tree_hash(lines_of(size))


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=70))
def test_the_head_is_the_one_of_the_definition_whatever_the_lines(lines: list[bytes]) -> None:
    assert tree_of(lines).root() == merkle_tree_hash(lines)


def test_asking_for_the_head_does_not_change_the_tree() -> None:
    """One tree that grows, asked after each line, agrees with trees made in one go."""
    tree = Tree()
    for size in SIZES:
        assert tree.root() == tree.root() == merkle_tree_hash(lines_of(size))
        tree.add(lines_of(size + 1)[-1])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 32, 33])
def test_no_other_log_of_near_size_has_the_same_head(size: int) -> None:
    """A line altered, dropped, doubled, moved, added or cut off anywhere gives another head."""
    lines = lines_of(size)
    heads = [tree_of(lines).root()]
    for place in range(size):
        heads.append(tree_of([*lines[:place], lines[place] + b" ", *lines[place + 1 :]]).root())
        heads.append(tree_of([*lines[:place], *lines[place + 1 :]]).root())
        heads.append(tree_of([*lines[:place], b"forged", *lines[place:]]).root())
    heads.append(tree_of([*lines, lines[-1]]).root())
    if size > 1:
        heads += [tree_of([*lines[:p], lines[p + 1], lines[p], *lines[p + 2 :]]).root() for p in range(size - 1)]
    assert len(set(heads)) == len(heads)


def test_a_line_cannot_pass_for_a_node() -> None:
    """Leaves and nodes are hashed with different first bytes (RFC 6962, section 2.1)."""
    left, right = leaf_hash(b"one"), leaf_hash(b"two")
    assert leaf_hash(left + right) != node_hash(left, right)
    assert tree_of([left + right]).root() != tree_of([b"one", b"two"]).root()
