import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from builders.cli.main import main
from builders.digits_sd import DigitsSD
from builders.errors import UserError
from builders.imagenet_100_sd import ImageNet100SD
from builders.prompt_writing.answer_log import Answer
from builders.prompt_writing.compose import compositions
from builders.prompt_writing.instruction import Request
from builders.prompt_writing.lint import lint
from builders.prompt_writing.write_prompts import write_prompts
from builders.recipes.recipe import Recipe
from tests.in_process import call


class Scripted:
    """An author whose answers follow from the request; it may end after some, as a killed process does."""

    name, revision = "scripted", "r1"

    def __init__(self, captions_per_answer: int = 4, ends_after: int = 10**9) -> None:
        self.captions_per_answer, self.num_left = captions_per_answer, ends_after
        self.requests: list[Request] = []

    def answers(self, requests: Sequence[Request], seed: int) -> Iterator[Answer]:
        for request in requests:
            if self.num_left == 0:
                raise KeyboardInterrupt
            self.num_left -= 1
            self.requests.append(request)
            lemma = re.findall(r"the words '(.*?)'", request.text)[0]
            lines = [
                f"{n}. {lemma} number {request.number}-{n}" for n in range(min(self.captions_per_answer, request.count))
            ]
            yield Answer(request.class_id, request.number, "\n".join([*lines, "9. something else"]))


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(csv.DictReader(path.open()))


def test_write_prompts__every_row_names_its_answer(recipe: Recipe, tmp_path: Path) -> None:
    out, author = tmp_path / "out.csv", Scripted()
    written = write_prompts(recipe, out, 10, author)
    lines = [json.loads(line) for line in Path(f"{out}.answers.jsonl").read_text().splitlines()[1:]]
    answers = {(line["class_id"], line["number"]): line["text"] for line in lines}
    rows = rows_of(out)
    assert written.num_rows == len(rows) == 30 and written.num_composed == 0 and len(answers) == 9
    for row in rows:
        assert row["source"] == "scripted" and row["text"] in answers[row["class"], int(row["answer"])]
    assert author.requests[3].count == 6 and "one number 0-3" in author.requests[3].text
    facts = json.loads(Path(f"{out}.json").read_text())
    assert (
        facts["model"] == "scripted" and facts["rows_by_source"] == {"scripted": 30} and "sense" in facts["instruction"]
    )


def test_write_prompts__compositions_fill_in_and_are_counted(recipe: Recipe, tmp_path: Path) -> None:
    written = write_prompts(recipe, tmp_path / "out.jsonl", 30, Scripted(captions_per_answer=2), tries=2)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    sources = [row["source"] for row in rows[:30]]
    # Thirty captions are two requests; two tries are one more.
    assert sources == ["scripted"] * 6 + ["composed"] * 24 and written.num_composed == 72
    assert {row["answer"] for row in rows if row["source"] == "composed"} == {-1}
    assert len({(row["class"], row["text"]) for row in rows}) == 90


@pytest.mark.parametrize("ends_after", [0, 1, 4, 8])
def test_write_prompts__a_run_that_ended_early_continues(recipe: Recipe, tmp_path: Path, ends_after: int) -> None:
    write_prompts(recipe, tmp_path / "whole.csv", 10, Scripted())
    with pytest.raises(KeyboardInterrupt):
        write_prompts(recipe, tmp_path / "out.csv", 10, Scripted(ends_after=ends_after))
    assert not (tmp_path / "out.csv").exists()
    log = tmp_path / "out.csv.answers.jsonl"
    log.write_bytes(log.read_bytes() + b'{"class_id": "n0')
    author = Scripted()
    write_prompts(recipe, tmp_path / "out.csv", 10, author)
    assert len(author.requests) == 9 - ends_after
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_write_prompts__odd_line_separators_in_an_answer_are_kept(recipe: Recipe, tmp_path: Path) -> None:
    class Odd(Scripted):
        def answers(self, requests: Sequence[Request], seed: int) -> Iterator[Answer]:
            for answer in super().answers(requests, seed):
                yield Answer(answer.class_id, answer.number, f"\x85 \u2028 \x1c\n{answer.text}")

    write_prompts(recipe, tmp_path / "out.csv", 4, Odd())
    first = (tmp_path / "out.csv").read_bytes()
    write_prompts(recipe, tmp_path / "out.csv", 4, Odd(ends_after=0))
    assert (tmp_path / "out.csv").read_bytes() == first


def test_write_prompts__answers_of_another_model_are_not_mixed(recipe: Recipe, tmp_path: Path) -> None:
    write_prompts(recipe, tmp_path / "out.csv", 4, Scripted())
    other = Scripted()
    other.name = "other"
    with pytest.raises(UserError, match="holds the answers of 'scripted' or to another instruction; remove it"):
        write_prompts(recipe, tmp_path / "out.csv", 4, other)


def test_write_prompts__captions_that_the_encoder_cuts_are_not_taken(tmp_path: Path) -> None:
    class Wordy(Scripted):
        def answers(self, requests: Sequence[Request], seed: int) -> Iterator[Answer]:
            for answer in super().answers(requests, seed):
                yield Answer(answer.class_id, answer.number, answer.text + f"\nzero {answer.class_id}{' four' * 90}")

    recipe = DigitsSD.recipe("c_cfg2")
    written = write_prompts(recipe, tmp_path / "out.csv", 5, Wordy())
    assert written.note == "" and max(len(row["text"]) for row in rows_of(tmp_path / "out.csv")) < 80
    written = write_prompts(ImageNet100SD.recipe("c_cfg2"), tmp_path / "in.csv", 2, Scripted())
    assert "were not counted" in written.note


def test_write_prompts__compositions_of_the_digits_are_what_the_model_learned(tmp_path: Path) -> None:
    recipe = DigitsSD.recipe("c_cfg2")
    found = list(compositions(recipe, recipe.classes[0]))
    assert len(found) == len(set(found)) == 13 and sum("inside" in text for text in found) == 8
    ended = call(main, "prompts", "make", "digits_sd/c_cfg2", "-o", tmp_path / "d.parquet", "--per-class", 20)
    assert ended.returncode == 0 and "10 classes have fewer than 20" in ended.stdout
    assert pq.read_table(tmp_path / "d.parquet").num_rows == 130
    assert lint(recipe, str(tmp_path / "d.parquet")) == []


def test_write_prompts__compositions_differ_name_the_class_and_never_change() -> None:
    recipe = ImageNet100SD.recipe("c_cfg2")
    found = list(compositions(recipe, recipe.classes[0]))
    assert len(set(found)) == len(found) == 6 * 12 * 8 * 8 and all("robin, thrush" in text for text in found)
    assert (
        found[0] == "a close-up photo of robin, thrush, in a wide landscape, seen from the front, in artificial light"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-o", "x.txt"), "is none of .csv, .jsonl, .parquet"),
        (("-o", "none/x.csv"), "there is no folder 'none'"),
        (("-o", "x.csv", "--per-class", 0), "--per-class is 0"),
        (("-o", "x.csv", "--llm", "."), "cannot be loaded as a causal language model"),
        (("-o", "x.csv", "--endpoint", "https://me:secret@host/v1"), "without a key in it"),
        (("-o", "x.csv", "--endpoint", "host/v1"), "must be a URL"),
    ],
)
def test_write_prompts__mistakes_are_one_sentence(
    options: tuple[object, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call(main, "prompts", "make", "digits_sd/c_cfg2", *options)
    assert ended.returncode == 2 and expected in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
