import gzip
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders.errors import UserError
from builders.prompts.canonical_rows import with_prompts
from builders.prompts.prompt_file import read_prompt_file
from builders.prompts.prompt_table import prompt_table
from builders.recipes.recipe import Recipe
from tests.loopback.files import FileServer
from tests.loopback.server import running

ROWS = [("n02", "two, on a wall"), ("n01", 'one {"brace"}'), ("n03", "drei – café"), ("n01", "one"), ("n02", "two")]


def write_formats(folder: Path) -> list[Path]:
    """Writes the same rows as CSV, with other names of columns, as JSON lines, Parquet, and packed."""
    quoted = [(wnid, text.replace('"', '""')) for wnid, text in ROWS]
    (folder / "a.csv").write_text("class,text\n" + "".join(f'{w},"{t}"\n' for w, t in quoted))
    (folder / "b.csv").write_text("\ufeffmore,caption,wnid\n" + "".join(f'x,"  {t}  ",{w}\n' for w, t in quoted))
    (folder / "c.tsv").write_text("class\tprompt\n" + "".join(f'{w}\t"{t}"\n' for w, t in quoted))
    lines = "".join(json.dumps({"text": text, "class": wnid, "other": [1]}) + "\n" for wnid, text in ROWS)
    (folder / "d.jsonl").write_text(lines)
    (folder / "e.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    columns = {"class": [wnid for wnid, _ in ROWS], "text": [text.replace(" ", "\n") for _, text in ROWS]}
    pq.write_table(pa.table(columns | {"weight": [1.0] * len(ROWS)}), folder / "f.parquet")
    return sorted(folder.iterdir())


def test_prompt_file__the_same_rows_in_any_format_are_one_recipe(recipe: Recipe, tmp_path: Path) -> None:
    found = [with_prompts(recipe, str(path)) for path in write_formats(tmp_path)]
    assert len({one.hash for one in found}) == 1 and [one.prompts_source for one in found][3] == "d.jsonl"
    table = prompt_table(found[0].prompts)
    assert table.counts == {"n01": 2, "n02": 2, "n03": 1}
    assert table.read()["text"].to_pylist() == ['one {"brace"}', "one", "two, on a wall", "two", "drei – café"]


def test_prompt_file__other_texts_order_weights_or_skips_are_another_recipe(recipe: Recipe, tmp_path: Path) -> None:
    def name(*lines: str) -> str:
        (tmp_path / "a.csv").write_text("\n".join(("class,text,weight,skip,source", *lines)))
        return with_prompts(recipe, str(tmp_path / "a.csv")).prompts

    rows = ("n01,one,1,,", "n01,I,1,,", "n02,two,1,,", "n03,three,1,false,")
    first = name(*rows)
    assert first == name(*rows[::-1][:2], *rows[:2]) == name(*(f"{row}me" for row in rows))
    changed = [(rows[1], rows[0]), ("n01,One,1,,", rows[1]), ("n01,one,2,,", rows[1]), (rows[0], "n01,I,1,true,")]
    assert len({first, *(name(*rows[2:], *pair) for pair in changed)}) == 5


def test_prompt_file__classes_may_be_named_and_others_are_left_out(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('class,text\none,I\n"two, 2",II\nn03,III\nn99,LXXXXIX\n')
    found = with_prompts(recipe, str(tmp_path / "a.csv"))
    assert prompt_table(found.prompts).read()["class"].to_pylist() == ["n01", "n02", "n03"]


def test_prompt_file__urls_and_patterns(recipe: Recipe, tmp_path: Path) -> None:
    write_formats(tmp_path)
    with running(FileServer(tmp_path)) as server:
        url = server.url
        assert read_prompt_file(f"{url}/d.jsonl").equals(read_prompt_file(str(tmp_path / "d.jsonl")))
        assert with_prompts(recipe, f"{url}/f.parquet").prompts_source == f"{url}/f.parquet"
    assert read_prompt_file(str(tmp_path / "[ab].csv")).num_rows == 2 * len(ROWS)


BAD: dict[str, tuple[bytes, str]] = {
    "utf-16.csv": ("class,text\nn01,one\n".encode("utf-16"), "cannot be read"),
    "latin-1.csv": ("class,text\nn01,caf\xe9\n".encode("latin-1"), "UTF8"),
    "latin-1.txt": ("{c} caf\xe9\n".encode("latin-1"), "save the file as UTF-8"),
    "long-row.csv": (b"class,text\nn01,one\nn02," + b"x" * 10_000_000 + b"\nn03,three\n", "a row of more than"),
    "long-row.jsonl": (b'{"text": "a"}\n{"text": "' + b"x" * 10_000_000 + b'"}\n', "a row of more than"),
    "long.csv": (b"class,text\nn01,one\nn03,three\nn02," + b"x" * 20_000 + b"\n", "row 3: its text has 20,000 letters"),
    "columns.csv": (b",".join(b"c%d" % number for number in range(1_000_000)) + b"\n", "more than 1,048,576 bytes"),
    "columns.jsonl": (json.dumps(dict.fromkeys(map(str, range(5000)), 1)).encode() + b"\n", "5,000 columns"),
    "missing.csv": (b"class,text\nn01,one\nn02,two\n", "1 of 3 classes have no prompt: n03"),
    "unknown.csv": (b"class,text\none,1\nto,2\nn03,3\n", "no prompt: n02; add rows for them; it has rows of 'to'"),
    "negative.csv": (b"class,text,weight\nn01,one,1\nn02,two,-2\nn03,three,1\n", "row 2: its weight is -2"),
    "nan.csv": (b"class,text,weight\nn01,one,1\nn02,two,nan\nn03,three,1\n", "row 2: its weight is nan"),
    "zero.jsonl": (b'{"class":"n01","text":"one","weight":0}\n', "its weight is 0"),
    "words.csv": (b"class,text,weight\nn01,one,much\n", "cannot be read"),
    "empty.csv": (b"", "has no column text"),
    "empty.txt": (b"\n \n", "is empty"),
    "empty.jsonl": (b"", "has no column text"),
    "header.csv": (b"class,text\n", "has no rows"),
    "blank.csv": (b"class,text\nn01,one\nn02,\nn03,three\n", "row 2: it has no text"),
    "headless.csv": (b"n01,one\nn02,two\n", "has no column text, prompt or caption, but n01, one"),
    "both.csv": (b"text,prompt\na,b\n", "has the columns text and prompt"),
    "list.json": (b'[{"text": "one"}]', "does not hold JSON lines"),
    "number.jsonl": (b'{"class": 1, "text": "one"}\n', "cannot be read"),
    "pickle.parquet": (pickle.dumps({"text": ["one"]}), "cannot be read"),
    "cut.parquet": (b"PAR1\x15\x04", "cannot be read"),
    "fields.txt": (b"{c}\n{q}\n", "row 2: unknown prompt field {q}"),
    "braces.txt": (b"{c} {\n", "row 1: prompt template"),
    "scenes.txt": (b"{c} inside {b}\n", "needs backgrounds"),
    "skips.csv": (b"text,skip\n{c},true\n", "every row is skipped"),
    "name.xlsx": (b"PK", "is none of .txt, .csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_prompt_file__a_bad_file_is_one_sentence(recipe: Recipe, tmp_path: Path, name: str) -> None:
    content, expected = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        with_prompts(recipe, str(tmp_path / name))
    message = str(caught.value)
    assert expected in message and name in message and "\n" not in message and len(message) < 600


def test_prompt_file__a_folder_or_no_file_is_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    cases = (
        (tmp_path, "is a folder"),
        (tmp_path / "none.csv", "cannot be read"),
        (tmp_path / "*.csv", "no file matches"),
    )
    for where, expected in cases:
        with pytest.raises(UserError, match=expected):
            with_prompts(recipe, str(where))


def test_prompt_file__templates_need_what_their_fields_name(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{c}\na photo of {lemma}, {h_c} inside {b}\n")
    found = with_prompts(replace(recipe, scenes=("sky",)), str(tmp_path / "t.txt"))
    assert prompt_table(found.prompts).has_templates and prompt_table(found.prompts).num_rows == 2
    bare = replace(recipe, scenes=("sky",), classes=tuple(replace(entry, hypernym="") for entry in recipe.classes))
    with pytest.raises(UserError, match="needs each class's hypernym, and 'n01' has none"):
        with_prompts(bare, str(tmp_path / "t.txt"))
