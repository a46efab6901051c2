"""Measures what a clone is worth: `fakeit-eval data`."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.errors import UserError
from builders.image_sets.base import ImageSet
from fakeit_eval.dataset_measures.copies import MIN_REAL, find_copies
from fakeit_eval.dataset_measures.distances import Features
from fakeit_eval.dataset_measures.estimate import share
from fakeit_eval.dataset_measures.match import match_pairs, match_sets
from fakeit_eval.dataset_measures.measure_all import (
    COMPARED,
    MEANINGS,
    compare_sets,
    measure_diversity,
    nearest_real,
)
from fakeit_eval.dataset_measures.neighbors import COVERAGE_K, MANIFOLD_K
from fakeit_eval.evaluate.cached_result import Score, cached_result, num_cut_files
from fakeit_eval.evaluate.classifier import known_classes
from fakeit_eval.evaluate.dataset_images import MeasuredClone, draw_copies, image_table, nearest_pairs
from fakeit_eval.features.extract import Loading, extract, extract_scores
from fakeit_eval.models import Model
from fakeit_eval.open_test_sets import OpenedSet
from fakeit_eval.reporting.results import as_file_name, describe_data

MAIN = ("coverage", "recognizability", "vendi_score")
"""The first of these that was measured is the value of the result."""
RANKED_BY = ("coverage", "recognizability", "class_distance")
"""The first of these that was measured ranks classes, the lowest first: the least covered, recognized, or diverse."""


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
    """Folder in `evaluations` named as the clone is.

    Raises:
        UserError: the folder would lie among the images.
    """
    is_local = Path(clone).exists()
    name = Path(clone).resolve().name if clone.strip("./") == "" else clone
    out = Path("evaluations") / as_file_name(name)
    if is_local and out.resolve().is_relative_to(Path(clone).resolve()):
        raise UserError(f"results would be written among the images of '{clone}'; give --out another folder")
    return out


def measure_clone(
    clone: Clone, backbone: Model, reference: Reference, loading: Loading, *, again: bool = False
) -> Path:
    """Measures a clone with the features of a backbone; the path of the result.

    Raises:
        UserError: an image is broken, the classifier knows none of the classes, or the two clones share no key.
    """
    if reference.classifier and not reference.classifier.backbone.classes:
        raise UserError(f"'{reference.classifier.name}' has no classifier; give --classifier a network that has one")
    # The files of all sets are part of the state, and of the identity only what is in them.
    others = [images for images in (reference.real, reference.against) if images]
    data = describe_data(clone.images.name, [clone.images])
    data["state"] = describe_data("", [clone.images, *others])["state"]
    evaluation = _Evaluation(clone.images, backbone, reference, loading)
    return cached_result(clone, "data", data, _settings(backbone, reference), evaluation.score, again=again)


def _settings(backbone: Model, reference: Reference) -> dict[str, Any]:
    def described(images: ImageSet | None) -> dict[str, Any] | None:
        if not images:
            return None
        data = describe_data(images.name, [images])
        return {name: data[name] for name in ("name", "digest", "num_samples", "num_classes", "read")}

    classifier = reference.classifier
    return {
        "backbone": {
            "name": _public_name(backbone), "sha256": backbone.sha256, "input_size": backbone.backbone.input_size
        },
        "real": described(reference.real),
        "against": described(reference.against),
        "classifier": {"name": _public_name(classifier), "sha256": classifier.sha256} if classifier else None,
        "per_class": reference.is_per_class,
        "manifold_k": MANIFOLD_K,
        "coverage_k": COVERAGE_K,
    }  # fmt: skip


def _public_name(model: Model) -> str:
    """The name of a network; of a run or a file only the last part, since others have it elsewhere."""
    return Path(model.name).name if Path(model.name).exists() else model.name


@dataclass(frozen=True)
class _Evaluation:
    clone: ImageSet
    backbone: Model
    reference: Reference
    loading: Loading

    def score(self) -> Score:
        real, against = self.reference.real, self.reference.against
        stored = [extract(self.backbone, images, self.loading) for images in (self.clone, real, against) if images]
        found = self._measure(self.clone, stored[0][:])
        more: dict[str, Any] = {}
        if against:
            one, other, rows, other_rows = match_pairs(self.clone, against)
            first = found if one is self.clone else self._measure(one, stored[0][rows])
            pairs = first, self._measure(other, stored[-1][other_rows])
            more = {"differences": _differences(*pairs), "num_pairs": len(one), "against": against.location}
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

    def _measure(self, images: ImageSet, features: Features) -> MeasuredClone:
        """Measures images with their features (n, d)."""
        prompts = images.prompt_ids() if images.prompt_ids else None
        measured = measure_diversity(features, images.labels, prompts)
        found = MeasuredClone(images=images, features=features, prompts=prompts, measured=measured)
        if self.reference.real:
            found = self._compare(found, self.reference.real)
        if self.reference.classifier:
            known, is_recognized = _recognize(self.reference.classifier, images, self.loading)
            measured.estimates["recognizability"] = share(is_recognized)
            found = replace(found, known=known, is_recognized=is_recognized)
        return found

    def _compare(self, found: MeasuredClone, real: ImageSet) -> MeasuredClone:
        matched = match_sets(found.images, real)
        found.measured.merge(compare_sets(found.features[matched.synthetic], self._real[matched.real]))
        if len(real) < MIN_REAL:
            found.measured.missing["copies"] = f"needs {MIN_REAL} real images or more, and has {len(real)}"
            return replace(found, matched=matched)
        nearest, exactness = nearest_real(found.features, self._real)
        copies = find_copies(nearest.distance, nearest.spacing)
        found.measured.estimates["copies"] = share(copies.is_copy)
        return replace(found, matched=matched, nearest=nearest, copies=copies, exactness=exactness)

    @cached_property
    def _real(self) -> Features:
        """Features (m, d) of all real images."""
        assert self.reference.real
        return extract(self.backbone, self.reference.real, self.loading)[:]

    def _per_class(self, found: MeasuredClone) -> dict[str, dict[str, Any]]:
        classes = {}
        for label, name in enumerate(found.images.class_names):
            rows = np.flatnonzero(found.images.labels == label)
            if not len(rows):
                continue
            prompts = found.prompts[rows] if found.prompts is not None else None
            measured = measure_diversity(found.features[rows], found.images.labels[rows], prompts)
            if found.matched:
                chosen = found.matched.labels == label
                pair = found.features[found.matched.synthetic[chosen]], self._real[found.matched.real[chosen]]
                measured.merge(compare_sets(*pair))
                if not (found.matched.real_labels == label).any():
                    measured.missing |= dict.fromkeys(COMPARED, "the real images have no such class")
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
        fields = {**measured.fields(), "notes": self._notes(found)}
        for name, number in fields["numbers"].items():
            number["meaning"] = MEANINGS[name]
        if measured.compared is not None:
            fields["num_compared"] = len(measured.compared)
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
        options = [f"--backbone {_public_name(self.backbone)}"]
        options += [f"--real {reference.real.name}"] if reference.real else []
        options += [f"--against {reference.against.name}"] if reference.against else []
        options += [f"--classifier {_public_name(reference.classifier)}"] if reference.classifier else []
        options += ["--per-class"] if reference.is_per_class else []
        return f"fakeit-eval data CLONE {' '.join(options)}"

    def _notes(self, found: MeasuredClone) -> list[str]:
        """What a reader of the numbers should know about them."""
        against, matched, compared = self.reference.against, found.matched, found.measured.compared
        notes = [images.note for images in (self.clone, self.reference.real) if images and images.note]
        notes += [matched.note] if matched and matched.note else []
        if matched and compared is not None and len(compared) < len(matched.labels):
            notes.append(f"of these, {len(compared):,} were compared, of each class its share")
        if found.known is not None and len(found.known) < len(found.images):
            notes.append(f"recognizability is of {len(found.known):,} images, whose classes the classifier knows")
        if found.exactness < 1:
            notes.append(f"copies: {found.exactness:.1%} of the nearest real images were found, by approximate search")
        if against and (self.clone.seed is None or self.clone.seed != against.seed):
            notes.append("the two clones are not known to share their seed, so their images may share no noise")
        return notes


def _differences(one: MeasuredClone, other: MeasuredClone) -> dict[str, Any]:
    """The measures of one clone minus those of the other, with intervals from the pairs of images."""
    found, compared = one.measured.estimates, other.measured.estimates
    return {name: found[name].minus(compared[name]).fields() for name in MEANINGS if name in found and name in compared}


def rank_classes(classes: dict[str, Any]) -> dict[str, Any]:
    """The measure by which classes are ranked, and their ids, the worst first; "" and [] if none has such a measure."""
    for name in RANKED_BY:
        known = [key for key, found in classes.items() if name in found["numbers"]]
        if known:
            worst = sorted(known, key=lambda key: (classes[key]["numbers"][name]["value"], key))
            return {"measure": name, "classes": worst}
    return {"measure": "", "classes": []}


def _recognize(classifier: Model, images: ImageSet, loading: Loading) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indices (k,) of the images whose class the classifier knows, and whether it recognizes each among all its classes."""
    tested, _ = known_classes(classifier, OpenedSet(images, None))
    _, logits = extract_scores(classifier, tested, loading)
    position = {name: number for number, name in enumerate(classifier.backbone.classes)}
    expected = np.array([position.get(name, -1) for name in tested.class_names])[tested.labels]
    known = np.isin(images.labels, np.unique(tested.labels))
    return np.flatnonzero(known), logits.argmax(1) == expected
