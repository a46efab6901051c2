"""Tests that a user's edits in a card stay, and that the generated content follows the manifest."""

from pathlib import Path

import pytest
import yaml

from builders.card.render import card_faults, clone_card
from builders.card.sections import CardText, merge_card, read_card, split_card, stale_keys
from builders.cli.main import main
from builders.errors import UserError
from builders.format.manifest import read_manifest
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.storage.base import open_storage
from builders.verification.verify_clone import verify_clone
from tests import in_process

CARD = """---
license: mit
configs: [1]
extra: {{a: "b: c"}}
---

# Title

<!-- fakeit:one -->
{one}
<!-- /fakeit:one -->

<!-- fakeit:two -->
two
<!-- /fakeit:two -->
"""
FRESH = CARD.format(one="1")


def test_sections__edits_of_the_user_stay() -> None:
    edited = (
        FRESH.replace("mit", "cc-by-4.0")
        .replace("# Title", "# My own\n\nA paragraph.")
        .replace("two -->\ntwo", "two -->\nodd")
    )
    found = merge_card(edited, CARD.format(one="changed"), "README.md")
    metadata, body = split_card(found, "README.md")
    assert metadata == {"license": "cc-by-4.0", "configs": [1], "extra": {"a": "b: c"}}
    assert "# My own\n\nA paragraph." in body and "changed" in body and "odd" not in body
    assert merge_card(found, CARD.format(one="changed"), "README.md") == found


def test_sections__sections_are_added_in_order_and_removed() -> None:
    without = FRESH.replace("<!-- fakeit:one -->\n1\n<!-- /fakeit:one -->\n", "mine\n")
    body = split_card(merge_card(without, FRESH, ""), "")[1]
    assert body.count("<!-- fakeit:one -->") == 1 and "mine" in body
    gone = FRESH.replace("<!-- fakeit:one -->\n1\n<!-- /fakeit:one -->\n", "")
    assert "fakeit:one" not in merge_card(FRESH, gone, "")


def test_sections__only_generated_keys_can_be_stale() -> None:
    assert stale_keys(FRESH.replace("mit", "other") + "more\r\n", FRESH, "") == []
    assert stale_keys(FRESH.replace("[1]", "[2]").replace("two -->\ntwo", "two -->\n2"), FRESH, "") == ["configs"]
    assert stale_keys("no yaml", FRESH, "") == ["configs"]


def test_sections__yaml_that_cannot_be_read_is_reported_with_its_line() -> None:
    with pytest.raises(UserError, match=r"the YAML of 'README.md', line 4 cannot be read"):
        split_card(FRESH.replace("extra: {", "extra: }"), "README.md")


@pytest.mark.parametrize(
    "edited",
    [FRESH.rstrip(), FRESH.replace("one -->\n", "one -->  \n"), "\n\n" + FRESH, FRESH.replace("---\n", "--- \n"),
     "\ufeff" + FRESH.replace("\n", "\r\n")],
)  # fmt: skip
def test_sections__whitespace_that_editors_change_does_not_matter(edited: str) -> None:
    assert stale_keys(edited, FRESH, "") == []
    assert split_card(merge_card(edited, FRESH, ""), "") == split_card(FRESH, "")


@pytest.mark.parametrize("mark", ["<!-- /fakeit:one -->\n", "<!-- fakeit:two -->\n"])
def test_sections__a_lost_mark_is_reported_and_no_text_is_lost(mark: str) -> None:
    edited = FRESH.replace(mark, "my own warning\n")
    with pytest.raises(UserError, match="without the other mark of its section"):
        merge_card(edited, FRESH, "README.md")


def test_sections__an_impossible_date_or_other_encoding_is_reported() -> None:
    with pytest.raises(UserError, match="month must be in"):
        split_card(FRESH.replace("license: mit", "date: 2024-13-45"), "README.md")
    with pytest.raises(UserError, match="line 3, is not UTF-8"):
        read_card("a\nb\nÜ".encode("latin-1"), "README.md")


def edit(path: Path) -> None:
    text = path.read_text().replace("license: other", "license: cc-by-4.0\ncontact: me@example.org")
    path.write_text(
        text.replace("\n## Use\n", "\n## Use\n").replace("# real_images/test", "# Digits\n\nScanned by hand.")
    )


def holds(path: Path) -> bool:
    metadata, body = split_card(path.read_text(), "")
    return metadata["license"] == "cc-by-4.0" and metadata["contact"] == "me@example.org" and "Scanned by hand." in body


def test_sections__edits_survive_growing_audit_sheet_verify_and_push(real_plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "clone"
    make_clone(Plan(real_plan.recipe, 2), str(out))
    card = out / "README.md"
    edit(card)
    assert holds(card) and list(verify_clone(str(out))) == []
    make_clone(Plan(real_plan.recipe, 4), str(out))
    manifest = read_manifest(open_storage(out))
    assert holds(card) and split_card(card.read_text(), "")[0]["fakeit"]["digest"] == manifest.digest
    assert (
        in_process.call(main, "audit", out).returncode == 0
        and holds(card)
        and "## What an audit found" in card.read_text()
    )
    assert in_process.call(main, "sheet", out, "-o", tmp_path / "s.png", "--card", out).returncode == 0
    assert holds(card) and "](sheet.png)" in card.read_text()
    assert (
        in_process.call(main, "card", out, "--check").returncode == 0 == in_process.call(main, "verify", out).returncode
    )
    assert in_process.call(main, "push", out, f"file://{tmp_path}/pushed").returncode == 0
    assert (tmp_path / "pushed" / "README.md").read_bytes() == card.read_bytes()
    card.write_text(card.read_text().replace("Scanned by hand.", "Scanned by hamd."))  # of the same length
    assert in_process.call(main, "push", out, f"file://{tmp_path}/pushed").returncode == 0
    assert (tmp_path / "pushed" / "README.md").read_bytes() == card.read_bytes()


def test_sections__a_changed_digest_is_a_fault(real_plan: Plan, tmp_path: Path) -> None:
    make_clone(Plan(real_plan.recipe, 2), str(tmp_path / "c"))
    storage, manifest = open_storage(tmp_path / "c"), read_manifest(open_storage(tmp_path / "c"))
    card = tmp_path / "c" / "README.md"
    card.write_text(card.read_text().replace(manifest.digest, "0" * 64))
    assert card_faults(storage, manifest) == ["fakeit"]
    (fault,) = verify_clone(str(tmp_path / "c"))
    assert "run 'fakeit-build card'" in str(fault)
    card.write_bytes(clone_card(storage, manifest))
    assert card_faults(storage, manifest) == []


def test_sections__license_and_description_can_be_given_when_a_clone_is_made(real_plan: Plan, tmp_path: Path) -> None:
    text = CardText(license="cc0-1.0", description="Scans of digits.")
    make_clone(Plan(real_plan.recipe, 2), str(tmp_path / "c"), text=text)
    card = (tmp_path / "c" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc0-1.0"
    assert "# real_images/test\n\nScans of digits.\n" in card and list(verify_clone(str(tmp_path / "c"))) == []
