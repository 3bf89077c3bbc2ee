"""Three rotations while an application keeps changing and reading values through the client."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.site import Site


@pytest.mark.parametrize("bind", ["column", "row"])
def test_no_read_fails_and_every_final_value_is_the_last_one_written(site: Site, bind: str) -> None:
    site.credentials(3000, bind=bind)
    application = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.application", str(site.config), site.url, bind],
        env=site.process_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert application.stdout is not None
        assert application.stdout.readline() == "ready\n"
        reports = [site.ok("rotate", "--force", "--reason", "test", "--json").json["keys"][0] for _ in range(3)]
        output, trouble = application.communicate("stop\n", timeout=60)
    finally:
        application.kill()
        application.communicate()
    found = json.loads(output)
    assert "failed" not in found, trouble
    assert found["wrong"] == 0
    assert found["extra"] == 0
    assert min(found[kind] for kind in ("read", "change", "insert", "delete")) > 20, found
    assert all(report["complete"] for report in reports)
    census = site.ok("census", "--json").json["targets"][0]
    assert census["versions"] == {"v4": found["rows"]}
