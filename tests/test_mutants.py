from tests.mutants import ROOT, read_table


def test_mutants__every_fault_fits_exactly_once() -> None:
    stale = [row for row in read_table() if (ROOT / row["file"]).read_text().count(row["from"]) != 1]
    assert not stale
