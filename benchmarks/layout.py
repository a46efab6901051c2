"""Measures size and layout of the code: lines by folder, the longest files and functions, the longest import chain.

python benchmarks/layout.py [NUM_DOCSTRINGS]     # takes seconds; writes nothing

With NUM_DOCSTRINGS it also prints that many docstrings, chosen with a fixed seed.
"""

import ast
import random
import sys
from collections import Counter
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.test_arrows import imports_of

ROOT = Path(__file__).parent.parent
PACKAGES = ("builders", "fakeit_train", "fakeit_eval")
NUM_SHOWN = 10


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions() -> list[tuple[int, str]]:
    """Returns the number of lines of each function, docstring and signature included, with its file and name."""
    found = []
    for path in sources(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno
                found.append((node.end_lineno - node.lineno + 1, f"{name_of(path)} {node.name}"))
    return sorted(found, reverse=True)


def longest_import_chain() -> list[str]:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): imports_of(path) for path in sources(*PACKAGES)}

    @cache
    def chain(name: str) -> tuple[str, ...]:
        below = [chain(other) for other in sorted(modules[name] & modules.keys())]
        return (name, *max(below, key=len, default=()))

    return [*max(map(chain, sorted(modules)), key=len)]


def docstrings() -> list[tuple[str, str]]:
    found = []
    for path in sources(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                found.append((f"{name_of(path)} {getattr(node, 'name', '')}".strip(), text))
    return sorted(found)


def main(num_docstrings: int) -> None:
    product = [ROOT / "fakeit_commands.py", *sources(*PACKAGES)]
    tests, benchmarks = sources("tests"), sources("benchmarks")
    for what, paths in (("product", product), ("tests", tests), ("benchmarks", benchmarks)):
        print(f"{what}: {sum(map(num_lines, paths)):,} lines in {len(paths)} files")
    folders: Counter[str] = Counter()
    for path in product:
        folders[path.parent.relative_to(ROOT).as_posix()] += num_lines(path)
    print("\nlines by folder:", ", ".join(f"{folder} {count:,}" for folder, count in sorted(folders.items())))
    print(
        "\nlongest files:",
        ", ".join(f"{name_of(p)} {num_lines(p)}" for p in sorted(product, key=num_lines)[: -NUM_SHOWN - 1 : -1]),
    )
    print("\nlongest functions:", ", ".join(f"{where} {count}" for count, where in functions()[:NUM_SHOWN]))
    longest = longest_import_chain()
    print(f"\nlongest chain of imports, {len(longest)} modules: {' → '.join(longest)}")
    for where, text in random.Random(20).sample(docstrings(), num_docstrings):
        print(f"\n{where}\n    " + text.replace("\n", "\n    "))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
