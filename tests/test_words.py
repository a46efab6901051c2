"""Tests that code and documentation use the standard terms of the field: lists words that they may not contain."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("builders", "fakeit_train", "fakeit_eval")

EVERYWHERE = re.compile(
    r"pictures?|paint\w*|asked|told|want of|dear|"
    # British spellings; the libraries' names are American
    r"\w*colou?red?\b(?<=our)|\w*colour\w*|\w*grey\w*|centre\w*|neighbour\w*|\w*behaviour\w*|licence\w*|catalogue\w*|artefact\w*|"
    r"(un)?labell\w+|cancell(ed|ing)|judgements?|favour\w*|"
    r"(normal|final|initial|optim|solar|material|serial|util|recogn|organ|summar|visual|random|general|minim|maxim)is(e|ed|es|er|ing|ation)|"
    r"analys(e|ed|es|ing)",
    re.IGNORECASE,
)
"""Whole words that no docstring, comment, message, help text or page may contain."""
LOCATION_WORD = re.compile(r"(?<!in )(?<!into )(?<!the )(?<!its )(?<!takes )\bplaces?\b(?! categor)", re.IGNORECASE)
"""Matches the word for data or a position. "In place" and "takes the place of" are allowed."""
IDENTIFIERS = {"part", "parts", "group", "groups", "making", "place", "places", "told", "asked", "picture", "pictures"}
"""Words that no identifier may contain; split, share, micro-batch, crop, domain or family say it better."""
FIELD = {
    "row_group", "row_groups", "num_row_groups", "row_group_size", "read_row_group",  # Parquet's
    "param_groups", "init_process_group", "destroy_process_group", "norm_num_groups",  # torch's and diffusers'
    "param_groups_layer_decay", "param_groups_weight_decay",  # timm's
    "discussion_type", "groupdict", "new_file_download_group",
    "MAKING",  # of `_making`
}  # fmt: skip
"""Identifiers of libraries, which are allowed."""


ON_DISK = {'"finalise"', 'f"{MAKING}/finalising.json"', '"painting"'}
"""Literals that files of format 2 hold, and a medium that an audit looks for."""


SKIPPED_ROWS = ("| n0", "| `builders/", "| `fakeit_")
"""Table rows of lemmas, and of docstrings as they were before decision 33."""


def words_of(identifier: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower().split("_"))


def tokens_of(path: Path) -> Iterator[tokenize.TokenInfo]:
    yield from tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)


def library_names(path: Path) -> set[int]:
    """Returns the lines that use a method or an argument of a library with one of the words as its name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("group", "groups", "parts"):
            found.add(node.end_lineno or 0)
        if isinstance(node, ast.keyword) and node.arg in ("group", "groups"):
            found.add(node.end_lineno or 0)
    return found


def faults_of(path: Path, *, with_prose: bool) -> Iterator[str]:
    library_lines = library_names(path)
    for token in tokens_of(path):
        where = f"{path.relative_to(ROOT)}:{token.start[0]}"
        is_ours = token.type == tokenize.NAME and token.string not in FIELD and token.start[0] not in library_lines
        if is_ours and (words := words_of(token.string) & IDENTIFIERS):
            yield f"{where} {token.string} ({', '.join(words)})"
        if token.type in (tokenize.STRING, tokenize.COMMENT) and with_prose and token.string not in ON_DISK:
            for pattern in (EVERYWHERE, LOCATION_WORD):
                yield from (f"{where} '{found[0]}'" for found in whole_words(pattern, token.string))


def whole_words(pattern: "re.Pattern[str]", text: str) -> Iterator["re.Match[str]"]:
    for found in pattern.finditer(text):
        before, after = text[: found.start()][-1:], text[found.end() :][:1]
        if not (before.isalnum() or after.isalnum() or "_" in (before, after)):
            yield found


CODE = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted(path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "builders/card/card_template.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def test_words__code_and_its_prose() -> None:
    faults = [fault for path in CODE for fault in faults_of(path, with_prose=True)]
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


def test_words__identifiers_of_tests_and_benchmarks() -> None:
    paths = [path for path in TESTS if "compat/2" not in path.as_posix()]
    faults = [fault for path in paths for fault in faults_of(path, with_prose=False)]
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words__pages(page: Path) -> None:
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if not line.startswith(SKIPPED_ROWS)]
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", "\n".join(lines))  # names on disk, addresses
    found = [match[0] for pattern in (EVERYWHERE, LOCATION_WORD) for match in whole_words(pattern, text)]
    assert not found, sorted(set(found))


def test_words__no_docstring_begins_with_of() -> None:
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                assert not (ast.get_docstring(node) or "").startswith("Of "), f"{path} {getattr(node, 'name', '')}"
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                assert not str(node.value.value).startswith("Of "), f"{path}:{node.lineno} {node.value.value!r}"
