import pytest

from builders.classes.class_list import ClassEntry
from builders.recipes.prompts import TEMPLATES, render_prompt, template_fields

ROBIN = ClassEntry(wnid="n01558993", name="robin, American robin", hypernym="thrush", definition="a bird")


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("c", "robin, American robin"),
        ("c_h", "robin, American robin, thrush"),
        ("c_d", "robin, American robin, a bird"),
        ("c_h_inside_b", "robin, American robin, thrush inside corn field"),
        ("photo_of_c", "a photo of robin, American robin"),
        ("image_of_c", "an image of robin, American robin"),
    ],
)
def test_prompts__six_templates_are_those_of_the_paper(name: str, prompt: str) -> None:
    assert render_prompt(TEMPLATES[name], ROBIN, "corn field") == prompt


def test_prompts__lemma_is_the_first_one() -> None:
    assert render_prompt("a sketch of {lemma}", ROBIN) == "a sketch of robin"


@pytest.mark.parametrize("template", ["{x}", "{c.wnid}", "{c", "{0}", "{}", "{c:d}", "{c!r}"])
def test_prompts__unknown_fields_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="prompt"):
        template_fields(template)
