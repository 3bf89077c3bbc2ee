"""What may become of a version: DESIGN's table of states, written out a second time and compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netraven_keys.errors import TransitionRefused, UnknownKey, UnknownVersion
from netraven_keys.keyring import transitions
from netraven_keys.keyring.model import Keyring, State, Version
from netraven_keys.keyring.transitions import Because
from tests.unit.keyrings import BECAUSE, activated, in_state, keyring_with, later, staged

# One row per state: encrypts, a client may decrypt, the service may decrypt, what it may become.
TABLE: dict[str, tuple[bool, bool, bool, set[str]]] = {
    "pre-active": (False, True, True, {"active", "deactivated", "compromised"}),
    "active": (True, True, True, {"deactivated", "suspended", "compromised"}),
    "suspended": (False, True, True, {"active", "deactivated", "compromised"}),
    "deactivated": (False, True, True, {"destroy-scheduled", "compromised"}),
    "compromised": (False, True, True, {"destroy-scheduled"}),
    # Cancelled, it is again what it was: deactivated or compromised.
    "destroy-scheduled": (False, False, True, {"deactivated", "compromised", "destroyed"}),
    "destroyed": (False, False, False, set()),
}
PAIRS = list(itertools.product(TABLE, TABLE))


def one_version_in(state: str) -> Keyring:
    """A keyring whose only version is in a state."""
    keyring = staged(keyring_with("credentials"), "credentials").keyring
    return keyring if state == "pre-active" else in_state(keyring, "credentials", 1, State(state))


KEYRINGS: dict[str, Keyring] = {state: one_version_in(state) for state in TABLE}


def version(keyring: Keyring, number: int) -> Version:
    return keyring.key("credentials").version(number)


def test_the_table_names_every_state() -> None:
    assert set(TABLE) == {state.value for state in State}
    assert len(PAIRS) == 49
    assert sum(len(row[3]) for row in TABLE.values()) == 15


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_every_pair_of_states_is_allowed_or_refused_exactly_as_in_the_table(before: str, after: str) -> None:
    assert (State(after) in transitions.ALLOWED[State(before)]) == (after in TABLE[before][3])


@pytest.mark.parametrize("state", TABLE)
def test_who_may_decrypt_in_a_state_is_as_in_the_table(state: str) -> None:
    _, client, service, _ = TABLE[state]
    assert (State(state) in transitions.CLIENT_DECRYPTS) == client
    assert (State(state) in transitions.SERVICE_DECRYPTS) == service


@pytest.mark.parametrize("state", TABLE)
def test_a_version_encrypts_only_in_the_states_of_the_table(state: str) -> None:
    primary = KEYRINGS[state].key("credentials").primary
    assert (primary is not None) == TABLE[state][0]


MOVES: dict[str, Callable[[Keyring, str, int, Because], Keyring]] = {
    "active": transitions.activate,
    "suspended": transitions.suspend,
}


@pytest.mark.parametrize("after", MOVES)
@pytest.mark.parametrize("before", TABLE)
def test_a_move_is_made_or_refused_as_the_table_says(before: str, after: str) -> None:
    keyring = KEYRINGS[before]
    if after in TABLE[before][3]:
        moved = MOVES[after](keyring, "credentials", 1, later(1))
        assert version(moved, 1).state == after
        assert version(keyring, 1).state == before
    else:
        with pytest.raises(TransitionRefused):
            MOVES[after](keyring, "credentials", 1, later(1))


@pytest.mark.parametrize("before", TABLE)
def test_only_a_suspended_version_is_resumed(before: str) -> None:
    if before == "suspended":
        resumed = transitions.resume(KEYRINGS[before], "credentials", 1, later(1))
        assert version(resumed, 1).state is State.ACTIVE
    else:
        with pytest.raises(TransitionRefused):
            transitions.resume(KEYRINGS[before], "credentials", 1, later(1))


@pytest.mark.parametrize("before", TABLE)
def test_a_version_is_deactivated_by_its_successor_only_where_it_was_primary(before: str) -> None:
    """Whatever else a version is, the activation of the next one leaves it alone."""
    key_id = version(KEYRINGS[before], 1).key_id ^ 0x80000000
    keyring = transitions.stage(KEYRINGS[before], "credentials", key_id=key_id, sealed=b"", because=BECAUSE)
    changed = transitions.activate(keyring, "credentials", 2, later(1))
    expected = "deactivated" if before in ("active", "suspended") else before
    assert version(changed, 1).state == expected
    assert version(changed, 2).state is State.ACTIVE


# --- activation -----------------------------------------------------------------------------------


def test_activation_deactivates_the_old_version_in_the_same_step_and_records_both() -> None:
    owned = staged(activated(keyring_with("credentials"), "credentials"), "credentials")
    because = Because(later(5).now, "bob", "ninety days are over")
    keyring = transitions.activate(owned.keyring, "credentials", 2, because)
    for number, state in ((1, State.DEACTIVATED), (2, State.ACTIVE)):
        last = version(keyring, number).history[-1]
        assert (last.state, last.at, last.who, last.why) == (state, because.now, "bob", "ninety days are over")
    assert [step.state for step in version(keyring, 1).history] == [State.PRE_ACTIVE, State.ACTIVE, State.DEACTIVATED]
    primary = keyring.key("credentials").primary
    assert primary is not None
    assert primary.number == 2
    # The keyring it was made from is as before.
    assert version(owned.keyring, 1).state is State.ACTIVE


def test_activation_deactivates_a_suspended_version_too() -> None:
    """So that it cannot be resumed beside the new one."""
    owned = staged(activated(keyring_with("credentials"), "credentials"), "credentials")
    suspended = transitions.suspend(owned.keyring, "credentials", 1, later(1))
    assert suspended.key("credentials").primary is None
    keyring = transitions.activate(suspended, "credentials", 2, later(2))
    assert version(keyring, 1).state is State.DEACTIVATED
    with pytest.raises(TransitionRefused):
        transitions.resume(keyring, "credentials", 1, later(3))


def test_a_version_lower_than_one_that_was_active_is_not_activated() -> None:
    """Values never go to a lower version, also when the higher one has been given up since."""
    owned = staged(staged(staged(keyring_with("credentials"), "credentials"), "credentials"), "credentials")
    keyring = transitions.activate(owned.keyring, "credentials", 2, later(1))
    with pytest.raises(TransitionRefused, match="lower version"):
        transitions.activate(keyring, "credentials", 1, later(2))
    given_up = in_state(keyring, "credentials", 2, State.COMPROMISED)
    assert given_up.key("credentials").primary is None
    with pytest.raises(TransitionRefused, match="lower version"):
        transitions.activate(given_up, "credentials", 1, later(2))
    assert version(transitions.activate(given_up, "credentials", 3, later(2)), 3).state is State.ACTIVE


def test_a_version_may_be_left_out() -> None:
    """A higher one is activated while a lower one is still staged; the lower one stays what it is."""
    owned = staged(staged(keyring_with("credentials"), "credentials"), "credentials")
    keyring = transitions.activate(owned.keyring, "credentials", 2, later(1))
    assert version(keyring, 1).state is State.PRE_ACTIVE


def test_another_key_is_not_touched() -> None:
    owned = activated(activated(keyring_with("credentials", "tokens"), "credentials"), "tokens")
    owned = staged(owned, "credentials")
    keyring = transitions.activate(owned.keyring, "credentials", 2, later(1))
    assert keyring.key("tokens") == owned.keyring.key("tokens")


def test_activation_does_not_raise_the_epoch() -> None:
    """The epoch grows by one at each save, however many moves the save holds."""
    owned = staged(keyring_with("credentials"), "credentials")
    assert transitions.activate(owned.keyring, "credentials", 1, later(1)).epoch == owned.keyring.epoch


@pytest.mark.parametrize("move", [transitions.activate, transitions.suspend, transitions.resume])
def test_a_key_or_version_that_is_not_there_is_named(move: Callable[[Keyring, str, int, Because], Keyring]) -> None:
    keyring = KEYRINGS["active"]
    with pytest.raises(UnknownKey, match="tokens"):
        move(keyring, "tokens", 1, BECAUSE)
    with pytest.raises(UnknownVersion, match="v2"):
        move(keyring, "credentials", 2, BECAUSE)


def test_age_counts_from_the_first_activation() -> None:
    keyring = transitions.activate(KEYRINGS["pre-active"], "credentials", 1, later(1))
    keyring = transitions.suspend(keyring, "credentials", 1, later(2))
    keyring = transitions.resume(keyring, "credentials", 1, later(3))
    assert version(keyring, 1).activated_at == later(1).now


# --- numbers --------------------------------------------------------------------------------------


def test_versions_count_up_and_are_never_reused() -> None:
    """A tombstone keeps its number, and so does a version that was never used."""
    owned = keyring_with("credentials")
    for expected in (1, 2, 3):
        assert transitions.next_number(owned.keyring.key("credentials")) == expected
        owned = staged(owned, "credentials")
    owned = owned.owned(in_state(owned.keyring, "credentials", 3, State.DESTROYED))
    assert transitions.next_number(owned.keyring.key("credentials")) == 4
    owned = staged(owned, "credentials")
    assert [v.number for v in owned.keyring.key("credentials").versions] == [1, 2, 3, 4]


def test_two_keys_count_their_versions_apart() -> None:
    owned = activated(activated(keyring_with("credentials", "tokens"), "credentials"), "credentials")
    assert transitions.next_number(owned.keyring.key("tokens")) == 1


# --- key ids --------------------------------------------------------------------------------------


def test_a_candidate_that_shares_28_bits_with_an_old_key_id_is_skipped() -> None:
    """With any version of any key, destroyed ones among them."""
    keyring = keyring_with("credentials", "tokens").keyring
    keyring = transitions.stage(keyring, "credentials", key_id=0x11111110, sealed=b"", because=BECAUSE)
    keyring = transitions.stage(keyring, "tokens", key_id=0x22222225, sealed=b"", because=BECAUSE)
    keyring = in_state(keyring, "credentials", 1, State.DESTROYED)
    candidates = [
        0,  # never a key id
        0x11111110,  # the same
        0x1111111F,  # the same in 28 bits
        0x22222220,  # the same in 28 bits as one of the other key
        0x2222222F,
        0x11111120,  # differs in the 28th bit
        0x33333333,
    ]
    assert transitions.unique_key_id(candidates, keyring) == 0x11111120


@pytest.mark.parametrize("low", range(16))
def test_a_key_id_that_shares_28_bits_with_an_old_one_is_not_staged(low: int) -> None:
    keyring = keyring_with("credentials", "tokens").keyring
    keyring = transitions.stage(keyring, "credentials", key_id=0x11111110, sealed=b"", because=BECAUSE)
    with pytest.raises(ValueError, match="28 bits"):
        transitions.stage(keyring, "tokens", key_id=0x11111110 + low, sealed=b"", because=BECAUSE)


@pytest.mark.parametrize("key_id", [0, -1, 2**32, 2**40])
def test_a_key_id_is_of_32_bits_and_not_zero(key_id: int) -> None:
    with pytest.raises(ValueError, match="28 bits"):
        transitions.stage(
            keyring_with("credentials").keyring, "credentials", key_id=key_id, sealed=b"", because=BECAUSE
        )


def test_many_staged_versions_have_key_ids_of_their_own() -> None:
    owned = keyring_with("credentials", "tokens")
    for _ in range(30):
        owned = staged(staged(owned, "credentials"), "tokens")
    ids = [v.key_id >> 4 for key in owned.keyring.keys for v in key.versions]
    assert len(ids) == len(set(ids)) == 60


# --- any sequence of moves ------------------------------------------------------------------------

EMPTY = keyring_with("credentials", "tokens").keyring
NAMES = st.sampled_from(["credentials", "tokens"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["stage", "activate", "suspend", "resume"]), NAMES, st.integers(1, 5)), max_size=25
)


def after(keyring: Keyring, move: str, name: str, number: int, because: Because) -> Keyring:
    if move == "stage":
        used = sum(len(key.versions) for key in keyring.keys)
        return transitions.stage(keyring, name, key_id=(used + 1) << 4, sealed=b"", because=because)
    moves = {"activate": transitions.activate, "suspend": transitions.suspend, "resume": transitions.resume}
    return moves[move](keyring, name, number, because)


@settings(deadline=None)
@given(STEPS)
def test_no_sequence_of_moves_leads_to_two_primaries_a_reused_number_or_a_lower_version(
    steps: list[tuple[str, str, int]],
) -> None:
    keyring = EMPTY
    for hour, (move, name, number) in enumerate(steps):
        before = keyring
        try:
            keyring = after(keyring, move, name, number, later(hour))
        except (TransitionRefused, UnknownVersion):
            assert keyring is before
            continue
        for key in keyring.keys:
            was = before.key(key.name)
            assert sum(v.state in (State.ACTIVE, State.SUSPENDED) for v in key.versions) <= 1
            assert [v.number for v in key.versions] == list(range(1, len(key.versions) + 1))
            assert key.versions[: len(was.versions)] == tuple(
                replace(v, history=key.version(v.number).history) for v in was.versions
            )
            for old in was.versions:
                now = key.version(old.number).history
                assert now[: len(old.history)] == old.history
            if key.primary is not None:
                assert key.primary is key.newest_used
            if was.newest_used is not None:
                assert key.newest_used is not None
                assert key.newest_used.number >= was.newest_used.number


# --- rotations ------------------------------------------------------------------------------------


def test_a_rotation_is_marked_until_it_ends() -> None:
    keyring = transitions.begin_rotation(KEYRINGS["active"], "credentials", 1, later(1))
    mark = keyring.key("credentials").rotation
    assert mark is not None
    assert (mark.to_version, mark.started_at, mark.who) == (1, later(1).now, "alice")
    assert transitions.end_rotation(keyring, "credentials") == KEYRINGS["active"]
