"""Tests of how the commands start, also if another package named `builders` is installed."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from builders.versions import DISTRIBUTION, versions

ROOT = Path(__file__).parent.parent


def test_commands__the_distribution_has_one_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION and project["version"] == versions()["fakeit"]
    assert [extra.partition("[")[0] for extra in project["optional-dependencies"]["all"]] == [DISTRIBUTION]


@pytest.mark.parametrize(
    "command", [["-m", "fakeit_train"], ["-m", "fakeit_eval"], ["-c", "import fakeit_commands as f; f.build()"]]
)
def test_commands__a_foreign_package_that_hides_ours_is_reported(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "builders").mkdir()
    (tmp_path / "builders" / "__init__.py").write_text("raise RuntimeError('not for us')\n")
    ended = subprocess.run([sys.executable, *command, "list"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert f"the package 'builders' in '{tmp_path / 'builders'}' is not fakeit's" in ended.stderr


def test_commands__a_foreign_package_in_our_folder_is_reported(tmp_path: Path) -> None:
    """This is the state in which pip leaves the folder if both packages are installed."""
    shutil.copytree(ROOT / "builders", tmp_path / "builders")
    (tmp_path / "builders-1.2.8.dist-info").mkdir()
    (tmp_path / "builders-1.2.8.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: builders\nVersion: 1.2.8\n"
    )
    code = "import fakeit_commands as f; f.build()"
    ended = subprocess.run([sys.executable, "-c", code, "list"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and "run 'pip uninstall builders' and install fakeit again" in ended.stderr


def test_commands__run_from_a_zip(tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packages"), "zip", ROOT, "builders")
    code = "import fakeit_commands as f; print(f._foreign_builders())"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": archive},
    )
    assert ended.stdout == "None\n", ended.stderr
