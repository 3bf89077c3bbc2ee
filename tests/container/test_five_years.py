"""The promise as a whole: started once on empty volumes, it rotates for years beside a running application."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import combinations, pairwise
from pathlib import Path
from statistics import median

from tests.container.deployment import SEED_COMMAND, WEEK, Deployment
from tests.container.kit import APPLICATION_USER, EXAMPLE, GROUP, Container

WEEKS = 261
INTERVAL = timedelta(days=90)
# Until here imports are done and caches are filled; from here on nothing may grow.
WARM_AFTER_WEEKS = 60
MEMORY_MAY_GROW_KIB = 2048
# CPython 3.13 keeps some 58,000 interned strings in a table with room for 87,381. Those that come and go use the room
# up, after some 220 to 250 weeks; then the table is made twice as large, once and for all (sys.getunicodeinternedsize,
# smaps).
INTERNED_TABLE_KIB = 1880


def resident_kib(container: Container) -> int:
    status = Path(f"/proc/{container.host_pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def trend_kib(memory: list[int]) -> float:
    """Growth from the first week to the last by the median slope between any two (Theil and Sen): what comes once is
    not in it, and what comes each week is."""
    slopes = [(later - earlier) / (j - i) for (i, earlier), (j, later) in combinations(enumerate(memory), 2)]
    return median(slopes) * (len(memory) - 1)


def without_the_table(memory: list[int]) -> list[int]:
    """The largest step from one week to the next taken out, as far as it is that table's."""
    steps = [later - earlier for earlier, later in pairwise(memory)]
    at = steps.index(max(steps)) + 1
    step = min(max(steps), INTERNED_TABLE_KIB)
    return [*memory[:at], *(kib - step for kib in memory[at:])]


def application(deployment: Deployment, *command: str) -> Container:
    """The example application, under a user of its own, on the keyring's volume read-only."""
    return deployment.bench.start(
        "application",
        *(option for option in deployment.options() if not option.endswith("/app/data/keys")),
        f"--volume={deployment.volumes['keys']}:/app/data/keys:ro",
        f"--user={APPLICATION_USER}:{GROUP}",
        "--env=DATABASE_URL=postgresql+psycopg://netraven@postgres/netraven",
        EXAMPLE,
        *command,
    )


def at(event: dict[str, str]) -> datetime:
    return datetime.fromisoformat(event["at"]).astimezone(UTC)


def test_five_years_of_weekly_runs_beside_an_application(deployment: Deployment) -> None:
    service = deployment.service(*SEED_COMMAND, moved=True)
    service.wait_for("scheduler.waiting", error="target_unavailable")
    database = deployment.postgres(table=False)
    assert application(deployment, "create-tables").exit_code() == 0
    first = service.wait_for("run.ended", outcome="done")
    running = application(deployment, "run", "--rate", "10")
    now = datetime.now(UTC)
    monday = now.replace(hour=1, minute=0, second=5) + timedelta(days=7 - now.weekday())
    memory = list[int]()
    for week in range(1, WEEKS + 1):
        # To just after the planned time, as a clock that nobody moves comes to it.
        deployment.move(int((monday - datetime.now(UTC)).total_seconds()) + (week - 1) * WEEK)
        ended = service.wait_for("run.ended", count=week + 1)
        assert (ended["outcome"], ended["exit_status"]) == ("done", 0), ended
        # Read off the column itself: nothing is left under an older version, whatever the application writes.
        assert set(database.versions()) <= {f"v{len(service.events('rotation.ended')) + 1}"}, week
        if week >= WARM_AFTER_WEEKS:
            memory.append(resident_kib(service))
    running.stop()
    counts = json.loads(running.logs().splitlines()[-1])

    rotations = service.events("rotation.ended")
    activated = [at(first), *(at(rotation) for rotation in rotations)]
    ages = [later - earlier for earlier, later in pairwise(activated)]
    print(f"{len(rotations)} rotations, the oldest key {max(ages).days} days, memory {memory[::20]} KiB")
    trend = trend_kib(without_the_table(memory))
    print(f"memory grew by {memory[-1] - memory[0]} KiB, its trend by {trend:.0f} KiB")
    print(f"application: {counts}")
    assert len(rotations) >= WEEKS * 7 // 91 - 1
    assert max(ages) <= INTERVAL
    assert at(service.events("run.ended")[-1]) - activated[-1] <= INTERVAL
    assert all(rotation["complete"] and rotation["stale"] == 0 for rotation in rotations)
    assert [rotation["to_version"] for rotation in rotations] == list(range(2, len(rotations) + 2))
    assert not service.events("run.failed")
    assert not service.events("unexpected.error")
    assert set(database.versions()) == {f"v{len(rotations) + 1}"}
    assert counts["reads"] > 500
    assert (counts["failed_reads"], counts["failed_writes"], counts["wrong_values"]) == (0, 0, 0)
    assert trend < MEMORY_MAY_GROW_KIB
    assert memory[-1] - memory[0] < MEMORY_MAY_GROW_KIB + INTERNED_TABLE_KIB
    assert service.stop()[0] == 0
