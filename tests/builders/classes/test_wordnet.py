import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.classes.wordnet import is_synset, parent_lemmas, read_synset


@pytest.mark.parametrize("text", ["n02084071", "dog.n.01", "toy_dog.n.01", "9/11.n.01"])
def test_wordnet__synsets_are_recognized(text: str) -> None:
    assert is_synset(text)


@pytest.mark.parametrize("text", ["dog", "n2084071", "R.V.", "a n.01", "n020840711"])
def test_wordnet__names_are_not_synsets(text: str) -> None:
    assert not is_synset(text)


def test_wordnet__a_synset_by_name_and_by_wnid_is_the_same(nltk_data: Path) -> None:
    assert read_synset("dog.n.01") == read_synset("n02084071")
    assert parent_lemmas(read_synset("dog.n.01")) == [["canine", "canid"], ["domestic animal", "domesticated animal"]]
    assert read_synset("entity.n.01").parents == []


def test_wordnet__missing_data_are_reported_with_the_download_command(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("dog.n.01\n")
    command = [sys.executable, "-m", "builders", "plan", "custom_sd/c_cfg2", "--source", str(tmp_path / "classes.txt")]
    clean = {**os.environ, "NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    ended = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "python -m nltk.downloader wordnet" in ended.stderr
