"""Measures the gallery of 1,000 classes with 50 noise images each, and of digits: bytes of the first view, and speed.

python -m tests.acceptance.accept_gallery      # about 5 minutes
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from builders.viewing.gallery import write_gallery
from tests.acceptance.record import record, run
from tests.noise import write_noise_clone

CHROMIUM = "/usr/bin/chromium"


def look(site: Path) -> dict[str, Any]:
    """Opens the list, searches, and opens a class in headless Chromium; returns bytes read and milliseconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        requested: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        start = time.perf_counter()
        page.goto(f"file://{site}/index.html")
        page.wait_for_selector(".class .tile")
        page.wait_for_load_state("networkidle")
        first = time.perf_counter() - start
        num_bytes = sum(
            Path(url.removeprefix("file://")).stat().st_size for url in requested if url.startswith("file://")
        )
        start = time.perf_counter()
        page.fill("#search", "7")
        while not page.evaluate("document.querySelector('#count').value.split(' ')[0] !== '0'"):
            assert time.perf_counter() < start + 30
            page.wait_for_timeout(5)
        search = time.perf_counter() - start
        start = time.perf_counter()
        page.locator(".class").first.click()
        page.wait_for_selector(".grid button")
        opened = time.perf_counter() - start
        browser.close()
    assert not errors and all(url.startswith((f"file://{site}/", "data:")) for url in requested)
    return {
        "bytes": num_bytes,
        "first": 1000 * first,
        "search": 1000 * search,
        "open": 1000 * opened,
        "files": len(requested),
    }


def main(folder: Path) -> None:
    noise = write_noise_clone(folder / "noise", num_classes=1000, per_class=50, shard_size=1000, side=64)
    run("build", "make", "digits_sd/c_cfg2", folder / "digits", "--images-per-class", 50, "--workers", 2)
    lines = [
        "| clone | writing, s | first view, KB | its files | its ms | search, ms | opening a class, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, clone in (("1,000 classes x 50 images of noise", noise), ("digits, 10 classes x 50", folder / "digits")):
        start = time.perf_counter()
        site = write_gallery(str(clone), folder / f"site-{clone.name}").parent
        written = time.perf_counter() - start
        found = look(site)
        lines.append(
            f"| {name} | {written:.0f} | {found['bytes'] / 1000:.0f} | {found['files']} | {found['first']:.0f} | "
            f"{found['search']:.0f} | {found['open']:.0f} |"
        )
        assert found["bytes"] < 1_000_000
    record("gallery", "The gallery in headless Chromium, opened from a disk", lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
