"""Tests the gallery in a real browser: search, filters, keyboard, phone, no outside requests, hostile text as text."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from builders.audit.audit import audit_clone
from builders.classes.class_list import ClassEntry
from builders.errors import UserError
from builders.format.manifest import Manifest
from builders.image_sets.open_image_set import open_image_set
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.recipes.recipe import Recipe
from builders.storage.base import open_storage
from builders.viewing.gallery import write_gallery
from fakeit_eval.evaluate.dataset import Clone, Reference, measure_clone
from fakeit_eval.features.extract import Loading
from fakeit_eval.models import open_model
from tests.builders.audit.embedders import WordEmbedder

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quotes\" 'and' <b>tags</b> & ${more} </script>",
    "\u202eright to left \u05d0\u05d1",
)
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed; run 'make system'")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def hostile(generated: Recipe, tmp_path: Path) -> Path:
    """A site of two clones whose names and prompts contain markup, and of real images."""
    classes = tuple(
        ClassEntry(wnid=f"n0{number}", name=name, hypernym="digit", definition="a number", base_count=4)
        for number, name in enumerate(HOSTILE, 1)
    )
    recipe = replace(generated, classes=classes, prompt="{c}, {h_c} inside {b}", scenes=("sky", "<i>sea</i>"))
    for name, guidance in (("a", 2.0), ("b", 5.0)):
        make_clone(Plan(replace(recipe, guidance_scale=guidance), 4), str(tmp_path / name))
    for entry in classes:
        (tmp_path / "real" / entry.wnid).mkdir(parents=True)
        Image.new("RGB", (40, 30), "red").save(tmp_path / "real" / entry.wnid / "x.png")
    out = tmp_path / "site"
    write_gallery(str(tmp_path / "a"), out, real=str(tmp_path / "real"), beside=str(tmp_path / "b"))
    return out


class Visit:
    """An open page that records its requests and the errors on its console."""

    def __init__(self, browser: Any, site: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("dialog", self.refuse)
        self.page.goto(f"file://{site}/index.html")
        self.site = site

    def refuse(self, dialog: Any) -> None:
        self.errors.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def check(self) -> None:
        assert self.errors == []
        assert all(url.startswith((f"file://{self.site}/", "data:")) for url in self.requests)


def test_gallery__hostile_names_and_prompts_show_as_text(browser: Any, hostile: Path) -> None:
    visit = Visit(browser, hostile)
    page = visit.page
    page.wait_for_selector(".class")
    titles = page.locator(".class h2").all_inner_texts()
    assert [any(name in title for title in titles) for name in HOSTILE] == [True] * 3
    page.locator(".class").first.click()
    page.wait_for_selector(".grid button")
    page.locator(".grid button").first.click()
    assert HOSTILE[0] in page.locator("#about").inner_text()
    assert page.locator("#about script, #about b, main b, main i, main script").count() == 0
    visit.check()


def test_gallery__search_filter_open_and_keyboard(browser: Any, hostile: Path) -> None:
    visit = Visit(browser, hostile)
    page = visit.page
    page.wait_for_selector(".class")
    page.keyboard.press("/")
    page.keyboard.type("quotes")
    assert page.locator(".class").count() == 1 and page.locator("#count").inner_text() == "1 of 3 classes"
    page.locator(".class").click()
    page.wait_for_selector(".grid button")
    # The sources synthetic, beside and real.
    assert page.locator(".grid button").count() == 4 + 4 + 1
    page.select_option("#source", "synthetic")
    assert page.locator(".grid button").count() == 4
    scenes = page.locator("#background option").all_inner_texts()
    assert "<i>sea</i>" in scenes or "sky" in scenes
    page.select_option("#background", scenes[1])
    few = page.locator(".grid button").count()
    assert 0 < few <= 4
    page.select_option("#background", "")
    page.locator(".grid button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    first = page.locator("#about").inner_text()
    assert "fakeit-build redo" in first and "guidance" in first
    # The image and the one with the same key in the other clone.
    assert page.locator("figure").count() == 2
    assert page.locator("figure img").first.get_attribute("alt")
    page.keyboard.press("ArrowRight")
    assert page.locator("#about").inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert page.locator("#about").inner_text() == first
    assert page.evaluate(
        "[...document.querySelectorAll('figure img')].every((image) => image.complete && image.naturalWidth > 0)"
    )
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("Escape")
    page.wait_for_selector(".class")
    visit.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_gallery__fits_a_phone(scheme: str, browser: Any, hostile: Path) -> None:
    visit = Visit(browser, hostile, viewport={"width": 360, "height": 640}, color_scheme=scheme)
    page = visit.page
    page.wait_for_selector(".class .tile")
    for step in (None, ".class", ".grid button"):
        if step:
            page.locator(step).first.click()
            page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}[scheme]
    visit.check()


def test_gallery__an_unknown_class_is_reported(browser: Any, hostile: Path) -> None:
    visit = Visit(browser, hostile)
    visit.page.goto(f"file://{hostile}/index.html#nothing")
    visit.page.reload()
    visit.page.wait_for_selector("text=There is no class")


def test_gallery__flagged_images_are_found(browser: Any, finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    write_gallery(str(finished[0]), tmp_path / "site", per_class=5)
    path = next((tmp_path / "site" / "data" / "classes").glob("n*.js"))
    head, _, rest = path.read_text().partition("(")
    data = json.loads(rest.rstrip(");\n"))
    data["parts"][0]["rows"][2][2 + data["columns"].index("nsfw")] = 1
    path.write_text(f"{head}({json.dumps(data)});")
    visit = Visit(browser, tmp_path / "site")
    visit.page.goto(f"file://{tmp_path}/site/index.html#{path.stem}")
    visit.page.wait_for_selector(".grid button")
    assert visit.page.locator(".grid .flagged").count() == 1
    visit.page.select_option("#flag", "1")
    assert visit.page.locator(".grid button").count() == 1
    visit.check()


def test_gallery__has_every_class_and_image(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    page = write_gallery(str(finished[0]), tmp_path / "site", per_class=3)
    index = (page.parent / "data" / "index.js").read_text()
    entries = json.loads(index[len("gallery.index(") : -3])["classes"]
    assert [entry["id"] for entry in entries] == finished[1].label_names
    assert sum(sum(entry["counts"]) for entry in entries) == finished[1].num_samples
    assert len(list((page.parent / "images").rglob("*.*"))) == 30 and index.isascii()
    again = write_gallery(str(finished[0]), tmp_path / "again", per_class=3)
    files = {path.relative_to(page.parent): path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    others = {path.relative_to(again.parent): path.read_bytes() for path in again.parent.rglob("*") if path.is_file()}
    assert files == others


def test_gallery__does_not_write_over_something_else(finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and is no gallery"):
        write_gallery(str(finished[0]), tmp_path / "mine")
    write_gallery(str(finished[0]), tmp_path / "site", per_class=1)
    shutil.rmtree(tmp_path / "site" / "sprites")
    write_gallery(str(finished[0]), tmp_path / "site", per_class=1)
    assert (tmp_path / "site" / "sprites").exists()


def test_gallery__audit_page_and_filter(browser: Any, finished: tuple[Path, Manifest], tmp_path: Path) -> None:
    embedder = WordEmbedder()
    audit_clone(str(finished[0]), embedder, cache=tmp_path / "cache").write(open_storage(tmp_path / "audit"))
    write_gallery(str(finished[0]), tmp_path / "site", audit=str(tmp_path / "audit"), per_class=4)
    visit = Visit(browser, tmp_path / "site")
    page = visit.page
    page.click("#audit")
    page.wait_for_selector("table[aria-label=classes]")
    rows = page.locator("table[aria-label=classes] tbody tr")
    assert rows.count() == 10
    recognized = [float(text.split()[0]) for text in rows.locator("td:nth-child(3)").all_inner_texts()]
    assert recognized == sorted(recognized)
    assert page.locator("table[aria-label='confusion within digit'] tbody tr").count() == 10
    rows.first.locator("a").first.click()
    page.wait_for_selector(".grid button")
    everything = page.locator(".grid button").count()
    page.select_option("#flag", "medium")
    few = page.locator(".grid button").count()
    assert 0 < few <= everything and page.locator(".grid .flagged").count() == few
    page.locator(".grid button").first.click()
    assert "medium" in page.locator("#about").inner_text()
    page.keyboard.press("Escape")
    page.click("#audit")
    page.wait_for_selector("table[aria-label=findings]")
    visit.check()


def test_gallery__measures_page_order_of_classes_and_marks(
    browser: Any, finished: tuple[Path, Manifest], scans: Path, tmp_path: Path
) -> None:
    measured = Clone(images=open_image_set(str(finished[0])), out=tmp_path)
    reference = Reference(real=open_image_set(str(scans / "train")), is_per_class=True)
    path = measure_clone(measured, open_model("pixels"), reference, Loading(cache=tmp_path))
    found = json.loads(path.read_text())
    write_gallery(str(finished[0]), tmp_path / "site", real=str(scans / "train"), measures=str(path), per_class=4)
    visit = Visit(browser, tmp_path / "site")
    page = visit.page
    listed = [
        link.split("#")[1] for link in page.eval_on_selector_all("a.class", "links => links.map((link) => link.href)")
    ]
    coverage = [found["per_class"][name]["numbers"]["coverage"]["value"] for name in listed]
    assert len(listed) == 10 and coverage == sorted(coverage)
    page.click("#measures")
    page.wait_for_selector("table[aria-label=classes]")
    rows = page.locator("table[aria-label=measures] tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == [name.replace("_", " ") for name in found["numbers"]]
    assert found["command"] in page.inner_text("main")
    page.locator("table[aria-label=classes] tbody a").first.click()
    page.wait_for_selector(".grid button")
    page.select_option("#flag", "uncovered")
    assert 0 < page.locator(".grid button").count() == page.locator(".grid .flagged").count()
    page.locator(".grid button").first.click()
    assert "from the nearest image of the other set" in page.inner_text("#about")
    # Not `wait_for_function`, whose later tries the page's content security policy refuses.
    is_loaded, deadline = "document.querySelector('#pictures img').naturalWidth > 0", time.monotonic() + 30
    while not page.evaluate(is_loaded) and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert page.evaluate(is_loaded)
    visit.check()
