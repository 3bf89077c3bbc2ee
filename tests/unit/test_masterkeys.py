"""Master keys: a damaged generated key is never a passphrase, and a hostile slot costs no work."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata

import pytest

from netraven_keys.crypto.aead import random_key
from netraven_keys.crypto.kdf import MAX_COST, MIN_COST, Argon2Cost, cost_is_bounded, stretch
from netraven_keys.crypto.secret import SecretBytes
from netraven_keys.errors import CorruptSlot, MasterKeyDamaged, NotMine
from netraven_keys.masterkeys import generated
from netraven_keys.masterkeys.from_text import TextMasterKey, master_key_from_text
from netraven_keys.masterkeys.generated import GeneratedMasterKey
from netraven_keys.masterkeys.passphrase import PassphraseMasterKey

BINDING = b"keyring 1, slot daily"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# Written out by hand: 32 bytes, their base64url, and the first six characters of the checksum.
KEY = SecretBytes(bytes(range(32)))
BODY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
CHECKSUM = base64.urlsafe_b64encode(hashlib.sha256(b"nrk-master-1-" + BODY.encode()).digest())[:6].decode()
SPELLED = "nrk-master-1-" + BODY + CHECKSUM
# `looks_generated` goes by this much of the beginning.
TELLTALE = len("nrk-master-")


def others(letter: str) -> list[str]:
    """What one character may have become: every other letter, and some that are none."""
    swapped = {
        letter.swapcase(),
        " ",
        "=",
        "+",
        "/",
        ".",
        "é",
        "\N{NON-BREAKING HYPHEN}",
        "\N{CYRILLIC SMALL LETTER A}",
    }
    return sorted((set(ALPHABET) | swapped) - {letter})


def changed(first: int, last: int) -> list[str]:
    """The key with every single change at the positions from `first` up to `last`."""
    return [SPELLED[:p] + other + SPELLED[p + 1 :] for p in range(first, last) for other in others(SPELLED[p])]


# --- the spelling of a generated key --------------------------------------------------------------


def test_the_spelling_is_prefix_base64url_and_six_characters_of_the_sha256_of_both() -> None:
    assert generated.spell(KEY).expose().decode() == SPELLED
    assert len(SPELLED) == 62
    assert generated.parse(SPELLED).same_as(KEY)


def test_a_generated_key_is_parsed_and_spelled_to_the_same_text() -> None:
    texts = {generated.generate().expose().decode() for _ in range(200)}
    assert len(texts) == 200
    for text in texts:
        assert re.fullmatch(r"nrk-master-1-[A-Za-z0-9_-]{49}", text)
        assert generated.spell(generated.parse(text)).expose().decode() == text
        assert isinstance(master_key_from_text("daily", text), GeneratedMasterKey)


def test_whitespace_around_a_generated_key_is_no_damage() -> None:
    """A file ends in a newline, and a terminal pastes blanks."""
    blob = GeneratedMasterKey("daily", KEY).wrap(KEY, BINDING)
    for text in (SPELLED + "\n", SPELLED + "\r\n", "  " + SPELLED, "\t" + SPELLED + " \n"):
        assert master_key_from_text("daily", text).unwrap(blob, BINDING).same_as(KEY)


def test_every_single_character_change_is_refused_as_a_spelling() -> None:
    candidates = changed(0, len(SPELLED))
    assert len(candidates) > 62 * 64
    for text in candidates:
        with pytest.raises(MasterKeyDamaged):
            generated.parse(text)


@pytest.mark.parametrize("length", range(len(SPELLED)))
def test_every_truncation_is_refused_as_a_spelling(length: int) -> None:
    for text in (SPELLED[:length], SPELLED[len(SPELLED) - length :]):
        with pytest.raises(MasterKeyDamaged):
            generated.parse(text)


def test_no_two_neighbours_may_change_places() -> None:
    swaps = 0
    for p in range(len(SPELLED) - 1):
        text = SPELLED[:p] + SPELLED[p + 1] + SPELLED[p] + SPELLED[p + 2 :]
        if text != SPELLED:
            swaps += 1
            with pytest.raises(MasterKeyDamaged):
                generated.parse(text)
    assert swaps > 50


def refused_as_damaged(text: str) -> bool:
    try:
        master_key_from_text("daily", text)
    except MasterKeyDamaged:
        return True
    return False


def test_a_change_after_the_beginning_is_never_taken_for_a_passphrase() -> None:
    candidates = changed(TELLTALE, len(SPELLED))
    assert len(candidates) > 51 * 64
    assert [text for text in candidates if not refused_as_damaged(text)] == []


@pytest.mark.parametrize("position", range(TELLTALE))
def test_a_change_in_the_beginning_is_never_taken_for_a_passphrase(position: int) -> None:
    """The body and its checksum are whole, so what it was meant to be is beyond doubt."""
    candidates = changed(position, position + 1)
    assert [text for text in candidates if not refused_as_damaged(text)] == []


@pytest.mark.parametrize("length", range(len(SPELLED)))
def test_a_truncation_is_never_taken_for_a_passphrase(length: int) -> None:
    assert refused_as_damaged(SPELLED[:length])


@pytest.mark.parametrize("lost", range(1, len("nrk-master-1-") + 1))
def test_a_key_that_lost_its_first_characters_is_never_taken_for_a_passphrase(lost: int) -> None:
    assert refused_as_damaged(SPELLED[lost:])


CASES = {
    "upper case": str.upper,
    "lower case": str.lower,
    "swapped case": str.swapcase,
    "title case": str.title,
    "capitalised": str.capitalize,
    "case-folded": str.casefold,
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_of_case_is_never_taken_for_a_passphrase(name: str) -> None:
    assert CASES[name](SPELLED) != SPELLED
    assert refused_as_damaged(CASES[name](SPELLED))


DAMAGED = {
    "twice": SPELLED + SPELLED,
    "in double quotes": f'"{SPELLED}"',
    "in single quotes": f"'{SPELLED}'",
    "with its variable before it": "NETRAVEN_ENCRYPTION_KEY=" + SPELLED,
    "a newline in the middle": SPELLED[:40] + "\n" + SPELLED[40:],
    "a blank in the middle": SPELLED[:40] + " " + SPELLED[40:],
    "padded": SPELLED + "=",
    "another version of the prefix": "nrk-master-2-" + SPELLED[13:],
    "the prefix alone": "nrk-master-1-",
    "another text after the prefix": "nrk-master-1-correct horse battery staple",
    "a passphrase that begins like one": "nrk-master-is-my-favourite-passphrase",
    "no checksum": "nrk-master-1-" + BODY,
    "a checksum of the body alone": "nrk-master-1-"
    + BODY
    + base64.urlsafe_b64encode(hashlib.sha256(BODY.encode()).digest())[:6].decode(),
    "another last letter with the same bits": "nrk-master-1-"
    + BODY[:-1]
    + "9"
    + base64.urlsafe_b64encode(hashlib.sha256(b"nrk-master-1-" + BODY[:-1].encode() + b"9").digest())[:6].decode(),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_begins_like_a_generated_key_and_is_none_is_damaged(name: str) -> None:
    assert refused_as_damaged(DAMAGED[name])


def test_an_empty_master_key_is_damaged() -> None:
    assert refused_as_damaged("")


def test_the_message_of_a_damaged_key_shows_nothing_of_it() -> None:
    with pytest.raises(MasterKeyDamaged) as damaged:
        master_key_from_text("daily", SPELLED[:-1])
    assert BODY[:6] not in f"{damaged.value} {damaged.value.remedy}"


# --- generated keys -------------------------------------------------------------------------------


def test_a_generated_key_opens_what_it_wrapped_and_nothing_else() -> None:
    master, secret = GeneratedMasterKey("daily", KEY), random_key()
    blob = master.wrap(secret, BINDING)
    assert GeneratedMasterKey("renamed", KEY).unwrap(blob, BINDING).same_as(secret)
    assert blob != master.wrap(secret, BINDING)
    for other in (b"", b"keyring 2, slot daily", BINDING + b"\0"):
        with pytest.raises(NotMine):
            master.unwrap(blob, other)
    with pytest.raises(NotMine):
        GeneratedMasterKey("daily", random_key()).unwrap(blob, BINDING)


def test_a_generated_key_opens_no_blob_that_was_altered_or_cut() -> None:
    master = GeneratedMasterKey("daily", KEY)
    blob = master.wrap(random_key(), BINDING)
    for bit in range(8 * len(blob)):
        altered = bytearray(blob)
        altered[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(NotMine):
            master.unwrap(bytes(altered), BINDING)
    for length in range(len(blob)):
        with pytest.raises(NotMine):
            master.unwrap(blob[:length], BINDING)


# --- passphrases ----------------------------------------------------------------------------------

PASSPHRASE = "Grüße aus Zürich, 서울 und Đà Nẵng"


@pytest.fixture(scope="module")
def passphrase() -> PassphraseMasterKey:
    return PassphraseMasterKey("daily", unicodedata.normalize("NFC", PASSPHRASE))


@pytest.fixture(scope="module")
def passphrase_blob(passphrase: PassphraseMasterKey) -> bytes:
    return passphrase.wrap(KEY, BINDING)


def test_a_passphrase_opens_what_it_wrapped(passphrase: PassphraseMasterKey, passphrase_blob: bytes) -> None:
    assert passphrase.unwrap(passphrase_blob, BINDING).same_as(KEY)


def test_a_passphrase_typed_in_nfd_is_the_one_typed_in_nfc(passphrase_blob: bytes) -> None:
    typed = unicodedata.normalize("NFD", PASSPHRASE)
    assert typed != unicodedata.normalize("NFC", PASSPHRASE)
    assert PassphraseMasterKey("daily", typed).unwrap(passphrase_blob, BINDING).same_as(KEY)


def test_another_passphrase_does_not_open_it(passphrase_blob: bytes) -> None:
    with pytest.raises(NotMine):
        PassphraseMasterKey("daily", PASSPHRASE.lower()).unwrap(passphrase_blob, BINDING)


def test_a_passphrase_opens_nothing_with_other_associated_data(
    passphrase: PassphraseMasterKey, passphrase_blob: bytes
) -> None:
    for other in (b"", b"keyring 2, slot daily", BINDING + b"\0"):
        with pytest.raises(NotMine):
            passphrase.unwrap(passphrase_blob, other)


def test_a_passphrase_opens_no_blob_that_was_cut(passphrase: PassphraseMasterKey, passphrase_blob: bytes) -> None:
    for length in range(len(passphrase_blob)):
        with pytest.raises(NotMine):
            passphrase.unwrap(passphrase_blob[:length], BINDING)


def test_a_passphrase_is_stretched_at_the_published_cost(passphrase_blob: bytes) -> None:
    """t=3, p=4, 64 MiB, and a salt of 16 bytes."""
    assert re.match(rb"argon2id:1:t=3,p=4,m=65536:[0-9a-f]{32}:", passphrase_blob)


def test_each_wrapping_has_a_salt_of_its_own(passphrase: PassphraseMasterKey, passphrase_blob: bytes) -> None:
    assert passphrase.wrap(KEY, BINDING).split(b":")[3] != passphrase_blob.split(b":")[3]


HOSTILE: dict[str, tuple[int, int, int]] = {
    "no pass": (0, 4, 65536),
    "one pass": (1, 4, 65536),
    "a pass below the floor": (2, 4, 65536),
    "a pass above the ceiling": (17, 4, 65536),
    "a thousand million passes": (999_999_999, 4, 65536),
    "2^40 passes": (2**40, 4, 65536),
    "no lane": (3, 0, 65536),
    "a lane above the ceiling": (3, 17, 65536),
    "2^40 lanes": (3, 2**40, 65536),
    "no memory": (3, 4, 0),
    "the least memory Argon2 takes": (3, 1, 8),
    "a KiB below the floor": (3, 4, 65535),
    "a KiB above the ceiling": (3, 4, 1024 * 1024 + 1),
    "999 GiB": (3, 4, 999_999_999),
    "2^40 KiB": (3, 4, 2**40),
    "2^40 of everything": (2**40, 2**40, 2**40),
    "nothing of everything": (0, 0, 0),
}


def test_the_table_of_hostile_costs_is_whole() -> None:
    assert len(HOSTILE) == 17


@pytest.mark.fault("K10")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_cost_is_refused_before_any_work(
    name: str, passphrase: PassphraseMasterKey, passphrase_blob: bytes
) -> None:
    """As a corrupt slot: the passphrase may well be right. Had the work begun, the larger ones would never end."""
    time, parallelism, memory_kib = HOSTILE[name]
    hostile = passphrase_blob.replace(b"t=3,p=4,m=65536", f"t={time},p={parallelism},m={memory_kib}".encode(), 1)
    assert hostile != passphrase_blob
    with pytest.raises(CorruptSlot):
        passphrase.unwrap(hostile, BINDING)


@pytest.mark.fault("K10")
@pytest.mark.parametrize("name", HOSTILE)
def test_no_key_is_stretched_at_a_hostile_cost(name: str) -> None:
    time, parallelism, memory_kib = HOSTILE[name]
    cost = Argon2Cost(time=time, parallelism=parallelism, memory_kib=memory_kib)
    assert not cost_is_bounded(cost)
    with pytest.raises(ValueError, match="bounds"):
        stretch(SecretBytes(b"passphrase"), b"s" * 16, cost)


def test_the_bounds_themselves_and_the_default_are_accepted() -> None:
    assert cost_is_bounded(MIN_COST)
    assert cost_is_bounded(MAX_COST)
    assert cost_is_bounded(Argon2Cost())


def test_a_cost_altered_within_the_bounds_does_not_open(
    passphrase: PassphraseMasterKey, passphrase_blob: bytes
) -> None:
    """The cost is authenticated with the key it wraps."""
    with pytest.raises(NotMine):
        passphrase.unwrap(passphrase_blob.replace(b"p=4", b"p=3", 1), BINDING)
    # The same cost in a second spelling gives the same key, and is refused by its associated data.
    with pytest.raises(NotMine):
        passphrase.unwrap(passphrase_blob.replace(b"t=3", b"t=03", 1), BINDING)


# --- both kinds -----------------------------------------------------------------------------------


def test_neither_kind_opens_what_the_other_wrapped(passphrase: PassphraseMasterKey, passphrase_blob: bytes) -> None:
    master = GeneratedMasterKey("daily", KEY)
    with pytest.raises(NotMine):
        master.unwrap(passphrase_blob, BINDING)
    with pytest.raises(NotMine):
        passphrase.unwrap(master.wrap(KEY, BINDING), BINDING)


KINDS: dict[str, tuple[str, bool, type[TextMasterKey], str]] = {
    "a generated key": (SPELLED, False, GeneratedMasterKey, "generated"),
    "a passphrase": ("correct horse battery staple", False, PassphraseMasterKey, "passphrase"),
    "a development passphrase": ("insecure", True, PassphraseMasterKey, "development"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_text_is_a_generated_key_or_a_passphrase_and_says_so(name: str) -> None:
    text, development, kind, origin = KINDS[name]
    master = master_key_from_text("daily", text, development=development)
    assert type(master) is kind
    assert master.origin == origin
    assert master.name == "daily"
    assert text not in f"{master!r} {master.uri}"


def test_blanks_belong_to_a_passphrase(passphrase_blob: bytes) -> None:
    with pytest.raises(NotMine):
        master_key_from_text("daily", PASSPHRASE + " ").unwrap(passphrase_blob, BINDING)
