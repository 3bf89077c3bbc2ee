"""When hooks run: `pre` before something changes, `deploy` once per success, `post` after each attempt.

What a hook does decides nothing: one that fails is reported, and the rotation goes on.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from netraven_keys.errors import NetravenKeysError
from netraven_keys.ports import HookResult
from netraven_keys.rotation.report import KeyReport, exit_status_of
from netraven_keys.service.installation import Installation
from netraven_keys.service.keyring_access import open_owned


@contextmanager
def hooked_run(inst: Installation, reports: Sequence[KeyReport]) -> Iterator[HookedRun]:
    """Around one attempt; `reports` is read at its end, when `post` runs whatever came of it."""
    hooks = HookedRun(inst)
    try:
        yield hooks
    except BaseException as problem:
        hooks.post(reports, interrupted=not isinstance(problem, NetravenKeysError))
        for result in hooks.failed:
            inst.warn(f"the {result.hook} hook {result.program} failed: {result.failure}")
        raise
    hooks.post(reports, interrupted=False)


class HookedRun:
    """The hooks of one attempt; `failed` are those that did not end well."""

    def __init__(self, inst: Installation) -> None:
        self._inst = inst
        self._ids = {"NRK_RUN_ID": secrets.token_hex(8)}
        self._begun = False
        self.failed: list[HookResult] = []
        # Those of `post`, which runs when there may be nobody left to tell.
        self.ended: list[HookResult] = []

    def pre(self, keys: Iterable[str]) -> Generator[HookResult, None, None]:
        """Once per run, however often it is called."""
        if not self._begun:
            self._begun = True
            yield from self._run("pre", {"NRK_KEYS": " ".join(keys)})

    def deploy(self, report: KeyReport) -> Generator[HookResult, None, None]:
        """For a rotation that is complete."""
        if report.complete and report.to_version is not None:
            yield from self._run("deploy", self._ids_of(report))

    def post(self, reports: Sequence[KeyReport], *, interrupted: bool) -> None:
        """If `pre` ran: also when the run failed or was interrupted."""
        if self._begun:
            result = {0: "done", 3: "incomplete"}.get(exit_status_of(reports), "failed") if reports else "failed"
            keys = " ".join(report.key for report in reports)
            ids = {"NRK_KEYS": keys, "NRK_RESULT": "interrupted" if interrupted else result}
            self.ended.extend(self._run("post", ids))

    def _ids_of(self, report: KeyReport) -> dict[str, str]:
        """Without the key ids where the keyring cannot be read just now: the rotation is done all the same."""
        numbers = {"": report.to_version, "OLD_": report.from_version}
        ids = {"NRK_KEY": report.key, "NRK_RESULT": "done"}
        ids |= {f"NRK_{name}VERSION": str(number) for name, number in numbers.items() if number is not None}
        with suppress(NetravenKeysError):
            key = open_owned(self._inst).keyring.key(report.key)
            for name, number in numbers.items():
                if number is not None:
                    ids[f"NRK_{name}KEY_ID"] = f"{key.version(number).key_id:08x}"
        return ids

    def _run(self, hook: str, ids: Mapping[str, str]) -> Generator[HookResult, None, None]:
        for result in self._inst.hooks.run(hook, {**self._ids, **ids}):
            if result.failure:
                self.failed.append(result)
            yield result
