import pytest

from builders.classes.class_list import ClassEntry
from builders.prompt_writing.instruction import accepted, parse_answer, request_text

CRANE = ClassEntry(wnid="n02012849", name="crane, wading bird", hypernym="bird", definition="large long-necked bird")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1. a crane\n2) two cranes\n(3) three\n", ["a crane", "two cranes", "three"]),
        ("- a crane\n* **two** cranes\n• “three”", ["a crane", "two cranes", "three"]),
        ('Sure:\n["a crane", "two  cranes", 3]', ["a crane", "two cranes"]),
        ("[not json\na crane [sic]", ["[not json", "a crane [sic]"]),
        ("<think>1. no\n</think>\n1. a crane", ["a crane"]),
        ("2 cranes at dawn\n\n", ["2 cranes at dawn"]),
        ("", []),
    ],
)
def test_instruction__answers_of_many_shapes_are_read(answer: str, expected: list[str]) -> None:
    assert parse_answer(answer) == expected


@pytest.mark.parametrize(
    ("text", "is_fine"),
    [
        ("a crane by a lake", True),
        ("Two CRANES at dusk", True),
        ("a wading bird in fog", True),
        ("a stork by a lake", False),
        ("craned necks of people", False),
        ("crane", False),
        ("a crane that is taken", False),
        ("A Crane That Is Taken", False),
        ("a crane\x00 by a lake", False),
        ("a crane " + "x" * 10_000, False),
    ],
)
def test_instruction__a_caption_names_its_class_and_is_new(text: str, is_fine: bool) -> None:
    found = accepted([text], CRANE, ["a crane that is taken"], lambda texts: [False] * len(texts))
    assert found == ([text] if is_fine else [])


def test_instruction__captions_that_are_cut_or_repeated_fall_through() -> None:
    texts = ["a crane here", "a crane there", "A crane here"]
    assert accepted(texts, CRANE, [], lambda texts: [text.endswith("there") for text in texts]) == ["a crane here"]


def test_instruction__the_sense_is_in_the_request() -> None:
    text = request_text(CRANE, 7, ["a crane by a lake"])
    for expected in (
        "7 different",
        "crane, wading bird, a kind of bird (large long-necked bird)",
        "'crane'",
        "a crane by a lake",
    ):
        assert expected in text
    assert "kind of" not in request_text(ClassEntry(wnid="x", name="thing"), 1, [])
