"""20,000 rows with random text keys: the case in which the predecessor left half behind and said it had not."""

from __future__ import annotations

from tests.site import Site

ROWS = 20_000


def test_every_one_of_20000_rows_is_under_the_new_version(site: Site) -> None:
    truth = site.credentials(ROWS)
    (report,) = site.ok("rotate", "--force", "--reason", "test", "--json").json["keys"]
    assert report["rows"]["re_encrypted"] == ROWS
    assert report["census"][0]["versions"] == {"v2": ROWS}
    assert site.ok("census", "--json").json["targets"][0]["versions"] == {"v2": ROWS}
    labels = {value[:7] for value in site.values().values()}
    assert labels == {"nrk:v2:"}
    assert site.plaintexts() == truth
