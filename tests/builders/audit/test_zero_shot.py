"""Tests zero-shot classification on embeddings whose answers follow by hand."""

import numpy as np

from builders.audit.text_prompts import MEDIA, Sense, TextPrompts
from builders.audit.zero_shot import (
    confusion,
    likely_labels,
    nearer_senses,
    other_media,
    probabilities,
    swallowed,
)

UNIT = np.eye(6, dtype=np.float32)
SENSE = Sense(wnid="n09", lemma="crane", definition="a machine", text="")
PROMPTS = TextPrompts(
    classes=UNIT[:2],
    media=np.stack([UNIT[[2, 3]] if medium == "painting" else -UNIT[[0, 1]] for medium in MEDIA]),
    senses=[[SENSE], []],
    sense_embeddings=[UNIT[[4]], UNIT[:0]],
    scenes={"sky": UNIT[5]},
)


def test_probabilities__are_a_softmax_of_scaled_cosines() -> None:
    found = probabilities(UNIT[:1], UNIT[:2], np.log(3))
    assert np.allclose(found, [[0.75, 0.25]])


def test_likely_labels__use_the_threshold_of_each_class() -> None:
    found = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.65, 0.35]], np.float32)
    assert likely_labels(found, np.array([0.7, 0.3], np.float32)).tolist() == [0, 1, 1, 1]
    assert likely_labels(found, np.array([0.95, 0.95], np.float32)).tolist() == [-1] * 4


def test_nearer_senses__score_above_the_class() -> None:
    embeddings = np.stack([0.6 * UNIT[0] + 0.8 * UNIT[4], UNIT[0], UNIT[4]])
    assert nearer_senses(embeddings, np.array([0, 0, 1]), PROMPTS).tolist() == [0, -1, -1]


def test_other_media__is_the_one_that_scores_above_a_photograph() -> None:
    embeddings = np.stack([UNIT[0], UNIT[2], UNIT[3]])
    found = other_media(embeddings, np.array([0, 0, 1]), PROMPTS)
    assert found.tolist() == [-1, MEDIA.index("painting"), MEDIA.index("painting")]


def test_swallowed__when_the_background_scores_above_the_class() -> None:
    embeddings = np.stack([0.8 * UNIT[0] + 0.6 * UNIT[5], 0.6 * UNIT[0] + 0.8 * UNIT[5], UNIT[5]])
    assert swallowed(embeddings, np.zeros(3, np.int64), ["sky", "sky", ""], PROMPTS).tolist() == [False, True, False]


def test_confusion__counts_only_the_members() -> None:
    found = np.array([[0.1, 0.2, 0.7], [0.3, 0.1, 0.6], [0.9, 0.05, 0.05], [0.1, 0.5, 0.4]])
    assert confusion(found, np.array([0, 0, 2, 1]), [0, 1]).tolist() == [[1, 1], [0, 1]]
