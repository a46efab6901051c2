from builders.classes.scenes import read_places365, scene_phrase


def test_scenes__there_are_365() -> None:
    scenes = read_places365()
    assert len(set(scenes)) == 365
    assert sum("/" in scene for scene in scenes) == 75


def test_scenes__the_qualifier_comes_first() -> None:
    assert scene_phrase("apartment_building/outdoor") == "outdoor apartment building"
    assert scene_phrase("sky") == "sky"


def test_scenes__phrases_are_all_different() -> None:
    assert len({scene_phrase(scene) for scene in read_places365()}) == 365
