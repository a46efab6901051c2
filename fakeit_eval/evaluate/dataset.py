"""Measures what a clone is worth: `fakeit-eval data`."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError
from fakeit_eval.classify import score_images
from fakeit_eval.dataset_measures.copies import find_copies
from fakeit_eval.dataset_measures.estimate import share
from fakeit_eval.dataset_measures.match import match_pairs, match_sets
from fakeit_eval.dataset_measures.measure_all import (
    MEANINGS,
    Features,
    compare_sets,
    measure_diversity,
    nearest_real,
)
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, MANIFOLD_K
from fakeit_eval.evaluate.cached_result import Score, cached_result, num_cut_files
from fakeit_eval.evaluate.classifier import known_classes
from fakeit_eval.evaluate.dataset_images import MeasuredClone, draw_copies, image_table, nearest_pairs
from fakeit_eval.features.extract import Loading, class_scores, extract
from fakeit_eval.image_sets.base import ImageSet
from fakeit_eval.models import Model
from fakeit_eval.open_test_sets import OpenedSet
from fakeit_eval.reporting.results import as_file_name, describe_data

MAIN = ("coverage", "recognizability", "vendi_score")
"""The first of these that was measured is the value of the result."""
RANKED_BY = ("coverage", "recognizability", "class_distance")
"""The first of these that was measured ranks classes; for each of them less is worse."""


@dataclass(frozen=True, kw_only=True)
class Clone:
    """The clone that a result belongs to, as any model that is evaluated."""

    images: ImageSet
    out: Path
    """Folder whose subfolder `results` receives the result."""

    @property
    def name(self) -> str:
        return self.images.location

    @property
    def trained_on(self) -> str:
        return self.images.name

    @property
    def sha256(self) -> str:
        return self.images.digest


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a clone is compared with."""

    real: ImageSet | None = None
    """Real images of the same classes."""
    against: ImageSet | None = None
    """Another clone; its images with the same keys share their noise with those of the clone."""
    classifier: Model | None = None
    """A network with a classifier that was trained on real images."""
    is_per_class: bool = False
    """Whether each class is measured on its own, too."""


def default_out(clone: str) -> Path:
    return Path("evaluations") / as_file_name(clone)


def measure_clone(
    clone: Clone, backbone: Model, reference: Reference, loading: Loading, *, again: bool = False
) -> Path:
    """Measures a clone with the features of a backbone; the path of the result.

    Raises:
        UserError: an image is broken, the classifier knows none of the classes, or the two clones share no key.
    """
    if reference.classifier and not reference.classifier.backbone.classes:
        raise UserError(f"'{reference.classifier.name}' has no classifier; give --classifier a network that has one")
    data, settings = describe_data(clone.images.name, [clone.images]), _settings(backbone, reference)
    evaluation = _Evaluation(clone.images, backbone, reference, loading)
    return cached_result(clone, "data", data, settings, evaluation.score, again=again)


def _settings(backbone: Model, reference: Reference) -> dict[str, Any]:
    def described(images: ImageSet | None) -> dict[str, Any] | None:
        names = ("name", "path", "digest", "state", "num_samples", "num_classes", "read")
        return {name: describe_data(images.name, [images])[name] for name in names} if images else None

    classifier = reference.classifier
    return {
        "backbone": {"name": backbone.name, "sha256": backbone.sha256, "input_size": backbone.backbone.input_size},
        "real": described(reference.real),
        "against": described(reference.against),
        "classifier": {"name": classifier.name, "sha256": classifier.sha256} if classifier else None,
        "per_class": reference.is_per_class,
        "manifold_k": MANIFOLD_K,
        "coverage_k": COVERAGE_K,
    }


@dataclass(frozen=True)
class _Evaluation:
    clone: ImageSet
    backbone: Model
    reference: Reference
    loading: Loading

    def score(self) -> Score:
        real, against = self.reference.real, self.reference.against
        stored = [extract(self.backbone, images, self.loading) for images in (self.clone, real, against) if images]
        more: dict[str, Any] = {}
        if against:
            one, other = match_pairs(self.clone, against)
            found, compared = self._measure(one), self._measure(other)
            more = {"differences": _differences(found, compared), "num_pairs": len(one)}
        else:
            found = self._measure(self.clone)
        more["per_class"] = self._per_class(found) if self.reference.is_per_class else {}
        more["ranking"] = rank_classes(more["per_class"])
        more["command"] = self._command()
        estimates = found.measured.estimates
        main = next((name for name in MAIN if name in estimates), "")
        return Score(
            value=estimates[main].value if main else 0.0,
            unit=main or "not measured",
            more={**self._fields(found), **more},
            num_cut_files=num_cut_files(stored),
            images=image_table(found, self.reference.real),
            drawing=draw_copies(found, self.reference.real),
        )

    def _measure(self, images: ImageSet) -> MeasuredClone:
        features = extract(self.backbone, images, self.loading)[:]
        prompts = images.prompt_ids() if images.prompt_ids else None
        measured = measure_diversity(features, images.labels, prompts)
        found = MeasuredClone(images=images, features=features, measured=measured)
        if self.reference.real:
            matched = match_sets(images, self.reference.real)
            compared = compare_sets(features[matched.synthetic], self._real[matched.real])
            measured.merge(compared)
            nearest = nearest_real(features, self._real)
            copies = find_copies(nearest.distance, nearest.spacing) if nearest else None
            if copies:
                measured.estimates["copies"] = share(copies.is_copy)
            found = replace(found, matched=matched, nearest=nearest, copies=copies)
        if self.reference.classifier:
            known, is_recognized = _recognize(self.reference.classifier, images, self.loading)
            measured.estimates["recognizability"] = share(is_recognized)
            found = replace(found, known=known, is_recognized=is_recognized)
        return found

    @cached_property
    def _real(self) -> Features:
        """Features (m, d) of all real images."""
        assert self.reference.real
        return extract(self.backbone, self.reference.real, self.loading)[:]

    def _per_class(self, found: MeasuredClone) -> dict[str, dict[str, Any]]:
        prompts = found.images.prompt_ids() if found.images.prompt_ids else None
        classes = {}
        for label, name in enumerate(found.images.class_names):
            rows = np.flatnonzero(found.images.labels == label)
            if not len(rows):
                continue
            measured = measure_diversity(
                found.features[rows], found.images.labels[rows], prompts[rows] if prompts is not None else None
            )
            if found.matched:
                chosen = found.matched.labels == label
                pair = found.features[found.matched.synthetic[chosen]], self._real[found.matched.real[chosen]]
                measured.merge(compare_sets(*pair))
            if found.copies:
                measured.estimates["copies"] = share(found.copies.is_copy[rows])
            if (
                found.known is not None
                and found.is_recognized is not None
                and (here := np.isin(found.known, rows)).any()
            ):
                measured.estimates["recognizability"] = share(found.is_recognized[here])
            classes[name] = {**measured.fields(), "num_images": len(rows)}
        return classes

    def _fields(self, found: MeasuredClone) -> dict[str, Any]:
        """The fields of a result file other than its value."""
        measured, real = found.measured, self.reference.real
        fields = {**measured.fields(), "num_measured": len(found.images), "notes": self._notes(found)}
        for name, number in fields["numbers"].items():
            number["meaning"] = MEANINGS[name]
        if found.matched:
            fields["num_compared"] = len(found.matched.labels)
        if real and found.copies:
            fields["copies"] = {
                "threshold": round(found.copies.threshold, 6),
                "num_copies": int(found.copies.is_copy.sum()),
                "pairs": [
                    [found.images.key_of(number), real.key_of(other), round(distance, 6)]
                    for number, other, distance in nearest_pairs(found)
                ],
            }
        return fields

    def _command(self) -> str:
        """The command that measures this, with names in place of paths."""
        reference = self.reference
        options = [f"--backbone {self.backbone.name}"]
        options += [f"--real {reference.real.name}"] if reference.real else []
        options += [f"--against {reference.against.name}"] if reference.against else []
        options += [f"--classifier {reference.classifier.name}"] if reference.classifier else []
        options += ["--per-class"] if reference.is_per_class else []
        return f"fakeit-eval data CLONE {' '.join(options)}"

    def _notes(self, found: MeasuredClone) -> list[str]:
        """What a reader of the numbers should know about them."""
        notes = [found.matched.note] if found.matched and found.matched.note else []
        if found.known is not None and len(found.known) < len(found.images):
            notes.append(f"recognizability is of {len(found.known):,} images, whose classes the classifier knows")
        if found.measured.recall_of_search < 1:
            notes.append(f"neighbors are approximate: {found.measured.recall_of_search:.1%} of the nearest were found")
        if self.reference.against and not _share_noise(self.clone, self.reference.against):
            notes.append("the two clones have other seeds, so their images share no noise")
        return notes


def rank_classes(classes: dict[str, Any]) -> dict[str, Any]:
    """The measure by which classes are ranked, and their ids, the worst first; "" and [] if none has such a measure."""
    for name in RANKED_BY:
        known = [key for key, found in classes.items() if name in found["numbers"]]
        if known:
            worst = sorted(known, key=lambda key: (classes[key]["numbers"][name]["value"], key))
            return {"measure": name, "classes": worst}
    return {"measure": "", "classes": []}


def _differences(one: MeasuredClone, other: MeasuredClone) -> dict[str, Any]:
    """The measures of one clone minus those of the other, with intervals from the pairs of images."""
    found, compared = one.measured.estimates, other.measured.estimates
    return {name: found[name].minus(compared[name]).fields() for name in MEANINGS if name in found and name in compared}


def _share_noise(one: ImageSet, other: ImageSet) -> bool:
    return one.seed is not None and one.seed == other.seed


def _recognize(classifier: Model, images: ImageSet, loading: Loading) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indices (k,) of the images whose class the classifier knows, and whether it recognizes each."""
    tested, _ = known_classes(classifier, OpenedSet(images, None))
    logits = class_scores(classifier, extract(classifier, tested, loading))
    scores = score_images(logits, tested.labels, tested.class_names, classifier.backbone.classes)
    known = np.isin(images.labels, np.unique(tested.labels))
    return np.flatnonzero(known), scores.is_right
