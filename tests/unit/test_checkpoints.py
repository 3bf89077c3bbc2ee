"""Checkpoints and proofs: ours, held against Go's own packages for signed notes and transparency logs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from netraven_keys.audit.chain import (
    consistency_proof,
    extends,
    includes,
    inclusion_proof,
    leaf_hash,
    root_of,
)
from netraven_keys.audit.checkpoint import (
    Checkpoint,
    NotACheckpoint,
    key_id,
    origin_of,
    read_note,
    read_verifier_key,
    signed_note,
    verifier_key,
)
from netraven_keys.audit.proofs import prove_growth, prove_line, read_growth_proof, read_line_proof
from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.crypto.signing import public_key_of, sign
from tests.unit.test_merkle import KNOWN_ENTRIES, KNOWN_ROOTS, merkle_tree_hash

SEED = SecretBytes(bytes(range(32)))
PUBLIC = public_key_of(SEED)
KEYRING = "0123456789abcdef0123456789abcdef"


def lines_of(count: int) -> list[bytes]:
    return [b'{"seq": %d}' % number for number in range(count)]


def noted(lines: list[bytes], seed: SecretBytes = SEED) -> tuple[Checkpoint, bytes]:
    leaves = [leaf_hash(line) for line in lines]
    point = Checkpoint(origin_of(KEYRING, leaves[0]), len(leaves), root_of(leaves))
    return point, signed_note(point, public_key_of(seed), lambda message: sign(seed, message))


# --- proofs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 40))
def test_every_line_of_every_tree_is_proven_and_no_other(size: int) -> None:
    lines = lines_of(size)
    leaves = [leaf_hash(line) for line in lines]
    root = merkle_tree_hash(lines)
    for index in range(size):
        proof = inclusion_proof(index, leaves)
        assert includes(leaves[index], index, size, proof, root)
        assert not includes(leaf_hash(b"another"), index, size, proof, root)
        assert not includes(leaves[index], index, size, [*proof, root], root)
        assert not includes(leaves[index], index, size, proof[:-1], root) or not proof
        for other in range(size):
            assert includes(leaves[index], other, size, proof, root) is (other == index)


@pytest.mark.parametrize("size", range(1, 40))
def test_every_tree_extends_those_it_began_with(size: int) -> None:
    leaves = [leaf_hash(line) for line in lines_of(size)]
    for old in range(1, size + 1):
        proof, before, after = consistency_proof(old, leaves), root_of(leaves[:old]), root_of(leaves)
        assert extends(old, before, proof, size, after)
        assert not extends(old, leaf_hash(b"x"), proof, size, after)
        assert not extends(old, before, proof, size, leaf_hash(b"x"))
        if proof:
            assert not extends(old, before, proof[:-1], size, after)
            assert not extends(old, before, [*proof, proof[0]], size, after)


def test_the_known_entries_have_proofs_to_the_known_heads() -> None:
    """RFC 6962 section 2.1.3 gives the tree of seven leaves and which nodes its proofs are made of."""
    leaves = [leaf_hash(entry) for entry in KNOWN_ENTRIES[:7]]
    g, h = root_of(leaves[0:2]), root_of(leaves[2:4])
    i, j = root_of(leaves[4:6]), leaves[6]
    k, m = root_of(leaves[0:4]), root_of(leaves[4:7])
    assert inclusion_proof(0, leaves) == [leaves[1], h, m]
    assert inclusion_proof(3, leaves) == [leaves[2], g, m]
    assert inclusion_proof(4, leaves) == [leaves[5], j, k]
    assert inclusion_proof(6, leaves) == [i, k]
    assert consistency_proof(3, leaves) == [leaves[2], leaves[3], g, m]
    assert consistency_proof(4, leaves) == [m]
    assert consistency_proof(6, leaves) == [i, j, k]
    assert root_of(leaves).hex() == KNOWN_ROOTS[7]


# --- notes ----------------------------------------------------------------------------------------


def test_a_note_of_another_key_or_text_is_refused() -> None:
    point, note = noted(lines_of(5))
    assert read_note(note, PUBLIC) == point
    with pytest.raises(NotACheckpoint, match="not signed by"):
        read_note(note, public_key_of(random_key()))
    for position in range(len(note)):
        for bit in range(8):
            changed = bytearray(note)
            changed[position] ^= 1 << bit
            with pytest.raises(NotACheckpoint):
                read_note(bytes(changed), PUBLIC)
    for length in range(len(note)):
        with pytest.raises(NotACheckpoint):
            read_note(note[:length], PUBLIC)


def test_a_witness_may_sign_beside_the_log() -> None:
    point, note = noted(lines_of(3))
    witness = base64.b64encode(b"\x01\x02\x03\x04" + bytes(64)).decode()
    assert read_note(note + f"— example.com/witness {witness}\n".encode(), PUBLIC) == point


def test_a_verifier_key_that_was_copied_wrongly_is_said_to_be() -> None:
    text = verifier_key(origin_of(KEYRING, leaf_hash(b"x")), PUBLIC)
    assert read_verifier_key(f" {text}\n")[1] == PUBLIC
    for wrong in ("", text[:-4], text.replace("+", "-"), text[:-8] + "AAAAAAA=", "netraven-keys/00/x+1+1"):
        with pytest.raises(NotACheckpoint):
            read_verifier_key(wrong)


def test_proofs_travel_as_text_and_every_change_of_them_is_seen() -> None:
    lines = lines_of(21)
    old, _ = noted(lines[:9])
    new, note = noted(lines)
    leaves = [leaf_hash(line) for line in lines]
    proof = prove_line(lines[12], 12, leaves, new, note)
    assert proof.startswith(b"c2sp.org/tlog-proof@v1\n")
    found = read_line_proof(proof, PUBLIC)
    assert (found.line, found.index, found.checkpoint) == (lines[12], 12, new)
    growth = prove_growth(leaves, old, new, note)
    assert read_growth_proof(growth, old, PUBLIC) == new
    for position in range(len(proof)):
        changed = bytearray(proof)
        changed[position] ^= 1
        with pytest.raises(NotACheckpoint):
            read_line_proof(bytes(changed), PUBLIC)
    for position in range(len(growth)):
        changed = bytearray(growth)
        changed[position] ^= 1
        with pytest.raises(NotACheckpoint):
            read_growth_proof(bytes(changed), old, PUBLIC)


# --- held against another implementation ----------------------------------------------------------

GO_SOURCES = Path("/usr/share/gocode")
_PROGRAM = """
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type Input struct {
	Key, Note                     string
	Line, Leaf                    string
	Index, Size, Old              int64
	Inclusion, Consistency        []string
	Root, OldRoot                 string
}

func hash(text string) tlog.Hash {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 32 {
		panic("not a hash")
	}
	var h tlog.Hash
	copy(h[:], raw)
	return h
}

func hashes(texts []string) []tlog.Hash {
	var out []tlog.Hash
	for _, text := range texts {
		out = append(out, hash(text))
	}
	return out
}

func main() {
	var in Input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		panic(err)
	}
	verifier, err := note.NewVerifier(in.Key)
	if err != nil {
		panic(err)
	}
	opened, err := note.Open([]byte(in.Note), note.VerifierList(verifier))
	if err != nil {
		fmt.Println("note:", err)
		os.Exit(1)
	}
	body := strings.Split(opened.Text, "\\n")
	if len(body) != 4 || body[1] != fmt.Sprint(in.Size) || body[2] != in.Root {
		fmt.Println("body")
		os.Exit(1)
	}
	raw, _ := base64.StdEncoding.DecodeString(in.Line)
	if tlog.RecordHash(raw) != hash(in.Leaf) {
		fmt.Println("leaf")
		os.Exit(1)
	}
	record := tlog.RecordProof(hashes(in.Inclusion))
	if err := tlog.CheckRecord(record, in.Size, hash(in.Root), in.Index, hash(in.Leaf)); err != nil {
		fmt.Println("record:", err)
		os.Exit(1)
	}
	tree := tlog.TreeProof(hashes(in.Consistency))
	if err := tlog.CheckTree(tree, in.Size, hash(in.Root), in.Old, hash(in.OldRoot)); err != nil {
		fmt.Println("tree:", err)
		os.Exit(1)
	}
	fmt.Println("ok")
}
"""


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of golang.org/x/mod, which the Go module mirror is verified with."""
    directory = tmp_path_factory.mktemp("go")
    (directory / "check.go").write_text(_PROGRAM)
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GO_SOURCES),
        "GOCACHE": str(directory / "cache"),
        "GOFLAGS": "",
    }
    command = ["go", "build", "-o", str(directory / "check"), str(directory / "check.go")]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return directory / "check"


def checked(checker: Path, given: dict[str, Any]) -> str:
    done = subprocess.run([str(checker)], input=json.dumps(given).encode(), capture_output=True, check=False)
    return done.stdout.decode() or done.stderr.decode()


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


@pytest.mark.skipif(
    shutil.which("go") is None or not (GO_SOURCES / "src/golang.org/x/mod/sumdb/note").is_dir(),
    reason="Go's packages are not installed (apt-get install golang-go golang-golang-x-mod-dev)",
)
@pytest.mark.parametrize(
    ("size", "old", "index"), [(1, 1, 0), (2, 1, 1), (7, 3, 4), (7, 4, 6), (64, 63, 63), (1000, 333, 512)]
)
def test_another_implementation_agrees(checker: Path, size: int, old: int, index: int) -> None:
    lines = lines_of(size)
    leaves = [leaf_hash(line) for line in lines]
    point, note = noted(lines)
    given = {
        "Key": verifier_key(point.origin, PUBLIC),
        "Note": note.decode(),
        "Line": b64(lines[index]),
        "Leaf": b64(leaves[index]),
        "Index": index,
        "Size": size,
        "Old": old,
        "Inclusion": [b64(one) for one in inclusion_proof(index, leaves)],
        "Consistency": [b64(one) for one in consistency_proof(old, leaves)],
        "Root": b64(point.root),
        "OldRoot": b64(root_of(leaves[:old])),
    }
    assert checked(checker, given) == "ok\n"
    assert "ok" not in checked(checker, {**given, "Note": note.decode().replace(f"\n{size}\n", f"\n{size + 1}\n")})
    assert "ok" not in checked(checker, {**given, "Leaf": b64(leaf_hash(b"another"))})
    if size > old:
        assert "ok" not in checked(checker, {**given, "OldRoot": b64(leaf_hash(b"another"))})


def test_the_key_id_is_the_one_of_the_specification() -> None:
    """The example key of C2SP signed-note."""
    name, _, encoded = ["example.com/foo", "530d903a", "AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"]
    assert key_id(name, base64.b64decode(encoded)[1:]).hex() == "530d903a"
