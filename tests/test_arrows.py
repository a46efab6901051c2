"""Tests the arrows of the architecture: which package may import which, and what an import may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("builders", "fakeit_train", "fakeit_eval")


def imports_of(path: Path) -> set[str]:
    """Returns the modules of this repository that a file imports. A plug-in chosen at run time counts as its folder."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name for name in modules if is_module(name)} or {node.module}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
            named = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(named, ast.Constant):
                found.add(str(named.value).rstrip("."))
    return {name for name in found if name.split(".")[0] in PACKAGES}


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def files_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


CONTRACT = (
    "errors",
    "versions",
    "plugins",
    "command_line",
    "storage",
    "classes",
    "images",
    "format",
    "image_sets",
    "networks",
    "classifiers",
)
"""Packages of `builders` that training and evaluation may import."""


@pytest.mark.parametrize("package", ["fakeit_train", "fakeit_eval"])
def test_arrows__train_and_eval_import_only_the_contract_and_themselves(package: str) -> None:
    allowed = (f"{package}.", *(f"builders.{name}" for name in CONTRACT))
    for path in files_of(package):
        for name in imports_of(path):
            assert f"{name}.".startswith(allowed), f"{path} imports {name}"


LAYERS = [
    "versions",
    "errors",
    "plugins",
    "command_line",
    "storage",
    "images",
    "classes",
    "format",
    "image_sets",
    "networks",
    "classifiers",
    "recipes",
    "prompts",
    "checks",
    "engines.base",
    "diffusion",
    "engines",
    "planning",
    "prompt_writing",
    "generation",
    "card",
    "coordination",
    "runners",
    "make_clone",
    "verification",
    "publishing",
    "viewing",
    "audit",
    "clone_builder",
    "registry",
    "cli",
]
"""Folders and modules of `builders`, lowest first. A module imports only from its own layer and from lower ones."""


def layer_of(name: str) -> int | None:
    """Returns the index of a module in `LAYERS`; None for a builder, which is a file beside them."""
    inner = name.removeprefix("builders.")
    found = [layer for layer in LAYERS if f"{inner}.".startswith(f"{layer}.")]
    return LAYERS.index(max(found, key=len)) if found else None


def test_arrows__no_import_runs_upward() -> None:
    for path in files_of("builders"):
        ours = layer_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in imports_of(path):
            theirs = layer_of(name)
            assert ours is None or theirs is None or theirs <= ours, f"{path} imports {name}, which is above it"


def test_arrows__builders_import_neither_training_nor_evaluation() -> None:
    for path in files_of("builders"):
        assert not any(name.startswith(("fakeit_train", "fakeit_eval")) for name in imports_of(path)), path


PLUGIN_FOLDERS = {
    "builders/checks": ("base",),
    "builders/engines": ("base",),
    "builders/runners": ("base", "worker"),
    "fakeit_eval/tasks": ("base",),
    "fakeit_eval/test_sets": ("base",),
    "fakeit_eval/probes": ("base",),
    "fakeit_eval/measures": (),
    "fakeit_eval/studies": ("base",),
    "fakeit_eval/study_bases": (),
    "fakeit_train/loggers": (),
    "fakeit_train/objectives": ("base",),
}
"""Folders of plug-ins with the modules in them that are no plug-ins. Plug-ins may import these, but not each other."""


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_arrows__plug_ins_do_not_import_each_other(folder: str) -> None:
    package = folder.replace("/", ".")
    allowed = {package, *(f"{package}.{name}" for name in PLUGIN_FOLDERS[folder])}
    for path in files_of(folder):
        for name in imports_of(path):
            assert not name.startswith(package) or name in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS)
def test_arrows__nothing_outside_a_folder_imports_its_plug_ins(folder: str) -> None:
    package = folder.replace("/", ".")
    allowed = {package, *(f"{package}.{name}" for name in PLUGIN_FOLDERS[folder])}
    for path in (path for kind in PACKAGES for path in files_of(kind) if not path.is_relative_to(ROOT / folder)):
        for name in imports_of(path):
            assert not name.startswith(f"{package}.") or name in allowed, f"{path} imports {name}"


def test_arrows__few_modules_import_diffusers() -> None:
    importing = [
        p for p in files_of("builders") if "import diffusers" in p.read_text() or "from diffusers" in p.read_text()
    ]
    assert [path.name for path in importing] == [
        "acceleration.py", "loading.py", "operations.py", "quiet.py", "safety_checker.py", "signature.py", "train.py",
    ]  # fmt: skip


def test_arrows__no_cycles() -> None:
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts): imports_of(p) for k in PACKAGES for p in files_of(k)
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in modules.get(name, set()) & modules.keys():
                visit(other, (*path, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def test_arrows__the_format_imports_neither_torch_nor_datasets() -> None:
    names = [f"builders.format.{path.stem}" for path in files_of("builders/format") if path.stem != "__init__"]
    check = (
        f"import sys, {', '.join(names)}; print([m for m in ('torch', 'datasets', 'diffusers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", check], cwd=ROOT, text=True).strip() == "[]"


def test_arrows__only_a_cli_prints() -> None:
    for package in PACKAGES:
        for path in files_of(package):
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            prints = any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)
            assert "cli" in (path.stem, path.parent.name) or not prints, path


UNIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios")


@pytest.mark.parametrize("folder", ["builders", "fakeit_train", "fakeit_eval"])
def test_arrows__no_module_imports_unix_modules_at_its_top(folder: str) -> None:
    """Users read clones and train on them on macOS and Windows, too."""
    for path in files_of(folder):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not set(names) & set(UNIX_ONLY), path


@pytest.mark.long
def test_arrows__reading_and_training_can_be_imported_without_unix_signals() -> None:
    code = (
        "import signal\nfor name in ('SIGUSR1', 'SIGUSR2', 'SIGKILL'): delattr(signal, name)\n"
        "import fakeit_train.trainer, builders.format.open_clone, builders.cli.main, fakeit_eval.cli.main\nprint('ok')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n", done.stderr


def test_arrows__no_file_has_more_than_300_lines_and_no_function_more_than_60() -> None:
    for path in (path for package in PACKAGES for path in files_of(package)):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path} {node.name}"
