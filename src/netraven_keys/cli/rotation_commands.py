"""init, rotate, reencrypt, census, verify, status."""

from __future__ import annotations

from typing import Any

import click

from netraven_keys.cli import show
from netraven_keys.cli.invocation import Invocation, verb
from netraven_keys.cli.progress import follow
from netraven_keys.cli.status_screen import print_census, print_status
from netraven_keys.errors import UsageError
from netraven_keys.keyring.opened import fingerprint
from netraven_keys.rotation.plan import Plan
from netraven_keys.rotation.report import KeyReport, error_json, reports_json
from netraven_keys.service import counting, initialise, reencrypt, rotate, status, verify
from netraven_keys.service.installation import Installation

_LISTED = 20


def add_to(group: click.Group) -> None:
    """Registers the verbs of this file."""

    @verb(group)
    @click.option("--without-targets", is_flag=True, help="Make the keyring although a database is not there yet.")
    def init(run: Invocation, without_targets: bool) -> int:
        """Make the keyring and its first versions.

        On an existing keyring it adds what is missing and changes nothing else.
        """
        return _init(run, without_targets)

    @verb(group, "rotate")
    @click.option("--key", metavar="NAME", help="Only this key.")
    @click.option("--force", is_flag=True, help="Rotate although it is not due. Needs --reason.")
    @click.option("--reason", metavar="TEXT", help="Why, for the audit record.")
    @click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
    @click.option("--now", is_flag=True, help="Do not wait for the hours of `sweep.window`.")
    @click.option("--executor", metavar="URL", help="Dask workers carry the values: tls://host:8786.")
    def rotate_(run: Invocation, dry_run: bool, executor: str | None, **request: Any) -> int:
        """Rotate what is due, and prove it.

        A new version, re-encryption of the data, the census. Nothing due is exit 0 and one line why.
        An unfinished rotation is finished first.
        """
        inst, wanted = run.installation(executor), rotate.Request(**request)
        return _plan(run, inst, wanted) if dry_run else _rotate(run, inst, wanted)

    @verb(group, "reencrypt")
    @click.option("--key", metavar="NAME", help="Only this key.")
    @click.option("--target", metavar="NAME", help="Only this target.")
    @click.option("--now", is_flag=True, help="Do not wait for the hours of `sweep.window`.")
    @click.option("--executor", metavar="URL", help="Dask workers carry the values: tls://host:8786.")
    def reencrypt_(run: Invocation, executor: str | None, **given: Any) -> int:
        """Carry what is left to the primary.

        Continues or repeats a re-encryption and proves it; converts legacy and plaintext values that the
        target accepts.
        """
        result = follow(reencrypt.reencrypt(run.installation(executor), **given))
        reported(run, result)
        return result.exit_status

    @verb(group, "census")
    @click.option("--key", metavar="NAME", help="Only this key.")
    def census_(run: Invocation, key: str | None) -> int:
        """Count the values of each version anew."""
        found = counting.census(run.installation(), key)
        if run.json:
            show.as_json(found.to_json())
        else:
            print_census(found)
            if found.line is not None:
                show.note(f"on the record as line {found.line}; netraven-keys audit prove {found.line}")
        return 3 if any(key_census.findings for key_census in found.keys) else 0

    @verb(group, "verify")
    @click.option("--key", metavar="NAME", help="Only this key.")
    def verify_(run: Invocation, key: str | None) -> int:
        """Decrypt every value.

        Exit 3 when one does not open.
        """
        return _verify(run, key)

    @verb(group, "status")
    @click.option("--check", is_flag=True, help="Exit 3 when something is wrong, for monitoring.")
    def status_(run: Invocation, check: bool) -> int:
        """Everything at one look.

        Keys, versions, ages, values per version, due dates, and what is wrong.
        """
        found = status.status(run.installation())
        if run.json:
            show.as_json(found.to_json())
        else:
            print_status(found, run.as_typed)
        return 3 if check and found.wrong else 0


def _init(run: Invocation, without_targets: bool) -> int:
    done = initialise.initialise(run.installation(), without_targets=without_targets)
    if run.json:
        show.as_json(
            {
                "keyring_id": done.keyring.keyring_id,
                "epoch": done.keyring.epoch,
                "fingerprint": fingerprint(done.keyring.signing_key),
                "created": done.created,
                "done": list(done.done),
            }
        )
        return 0
    for made in done.done:
        show.line(f"made {made}")
    if not done.done:
        show.line("everything is there already; nothing was changed")
    if done.created:
        show.line()
        show.line("What to do next:")
        show.line(f"  Keyring fingerprint: {fingerprint(done.keyring.signing_key)}  (a restore elsewhere asks for it)")
        show.line("  1. Keep a copy of the master key away from this machine: without it nothing opens.")
        show.line("  2. Keep what opens the backups away from this machine too, and copies of the backups themselves.")
        show.line("  3. netraven-keys status")
    return 0


def _plan(run: Invocation, inst: Installation, request: rotate.Request) -> int:
    plans, not_due = rotate.plans(inst, request)
    if run.json:
        show.as_json({"plans": [plan.to_json() for plan in plans], "not_due": not_due})
        return 0
    for why in not_due:
        show.line(f"nothing to do: {why}")
    for plan in plans:
        _print_plan(plan)
    return 0


def _print_plan(plan: Plan) -> None:
    doing = "finish the rotation of" if plan.resumes else "rotate"
    show.line(f"{show.strong(f'{doing} {plan.key}')}  ({plan.why})")
    for number, step in enumerate(plan.steps()):
        show.line(f"  {number}  {step}")
    for target in plan.targets:
        show.line(
            f"     {target.name}: {target.to_rewrite:,} of {show.plural(target.values, 'value')} in {target.place}"
        )
        for warning in target.warnings:
            show.line(f"     {target.name}: note: {warning}")


def _rotate(run: Invocation, inst: Installation, request: rotate.Request) -> int:
    result = follow(rotate.rotate(inst, request))
    reported(run, result)
    return result.exit_status


def reported(run: Invocation, result: rotate.Result) -> None:
    """Prints what came of each key, of the hooks and of the backup afterwards."""
    problem = result.not_backed_up
    if run.json:
        hooks = [{"hook": h.hook, "program": h.program, "failure": h.failure} for h in result.failed_hooks]
        show.as_json(
            reports_json(result.reports)
            | {
                "not_due": list(result.not_due),
                "failed_hooks": hooks,
                "not_backed_up": None if problem is None else error_json(problem),
            }
        )
        return
    for why in result.not_due:
        show.line(f"nothing to do: {why}")
    for report in result.reports:
        print_report(report)
    if problem is not None:
        show.line(f"{show.bad('backups:')} {problem.message}")
        show.line(f"  {problem.remedy}")


def print_report(report: KeyReport) -> None:
    """The outcome of one key: the proof, or what stands in its way."""
    if report.error is not None:
        show.error(report.error, json_wanted=False)
        return
    written = sum(tally.re_encrypted for tally in report.tallies)
    conflicts = sum(tally.skipped_conflict for tally in report.tallies)
    seconds = report.seconds.get("total", 0.0)
    start = f"{report.key}: v{report.from_version} -> v{report.to_version}" if report.from_version else report.key
    show.line(
        f"{show.strong(start)}  {show.plural(written, 'value')} re-encrypted in {seconds:.1f} s"
        + (f", {report.already_current:,} were current" if report.already_current else "")
        + (f", {conflicts:,} changed by the application meanwhile" if conflicts else "")
    )
    for tally in report.tallies:
        for format_, count in tally.converted.items():
            show.line(f"  {tally.target}: {show.plural(count, f'{format_} value')} adopted")
        if tally.wrapped_twice:
            show.line(f"  {tally.target}: {show.plural(tally.wrapped_twice, 'value')} had been wrapped more than once")
    for census in report.proof:
        _print_proof(report, census.name, census.versions, census.total)
    for text in report.notes:
        show.line(f"  {show.bad('not proven:')} {text}")
    _print_quarantine(report)
    if report.complete:
        show.line(f"  {show.good('complete:')} nothing is left under an older version")
    elif report.stale_remaining:
        show.line(f"  {show.bad('incomplete:')} {show.plural(report.stale_remaining, 'value')} not yet carried over")
        show.line(f"  run it again: netraven-keys reencrypt --key {report.key}")


def _print_proof(report: KeyReport, target: str, versions: dict[int, int], total: int) -> None:
    current = versions.get(report.to_version or 0, 0)
    older = ", ".join(
        f"v{number}: {count:,}" for number, count in sorted(versions.items()) if number != report.to_version
    )
    show.line(
        f"  census {target}: {current:,} of {show.plural(total, 'value')} under v{report.to_version}"
        + (f"  ({older})" if older else "")
    )


def _print_quarantine(report: KeyReport) -> None:
    if not report.quarantined:
        return
    show.line(f"  {show.bad('quarantined:')} {show.plural(report.quarantined, 'value')}, left byte for byte as found")
    for value in report.listed[:_LISTED]:
        show.line(f"    {value.target} row {value.row}: {value.reason}: {value.detail}")
    if report.quarantined > _LISTED:
        show.line(f"    and {report.quarantined - _LISTED:,} more: --json lists them")
    show.line("  they block completion and destruction, never the next rotation")


def _verify(run: Invocation, key: str | None) -> int:
    found = follow(verify.verify(run.installation(), key))
    if not found:
        raise UsageError("no target is declared, so there is nothing to verify", remedy="Declare one under `targets:`.")
    if run.json:
        show.as_json({"targets": [one.to_json() for one in found]})
    else:
        for one in found:
            forms = ", ".join(f"{form}: {count:,}" for form, count in sorted(one.by_form.items()))
            mark = show.bad(f"{one.failures:,} do not") if one.failures else show.good("all do")
            show.line(f"{one.target}: {show.plural(one.opened, 'value')} opened ({forms or 'none'}), {mark}")
            if one.former:
                show.line(f"  {one.former:,} of them under a former name of the target; reencrypt rewrites them")
            for value in one.listed[:_LISTED]:
                show.line(f"  row {value.row}: {value.reason}: {value.detail}")
    return 3 if any(one.failures for one in found) else 0
