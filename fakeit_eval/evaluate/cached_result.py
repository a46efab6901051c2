"""Evaluates only what has no result yet: the one rule that all evaluations share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fakeit_eval import ranks
from fakeit_eval.features.extract import StoredFeatures
from fakeit_eval.reporting.results import Evaluated, is_known, result_path, write_result

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Score:
    """What an evaluation found."""

    value: float
    """The main number."""
    unit: str
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the result file."""
    num_cut_files: int = 0
    """Image files that end early and were decoded up to that point."""
    images: "pa.Table | None" = None
    """A row for each image; it is written beside the result file, as Parquet."""
    drawing: bytes | None = None
    """A PNG file that is written beside the result file."""


def cached_result(
    model: Evaluated,
    task: str,
    data: dict[str, Any],
    settings: dict[str, Any],
    compute: Callable[[], Score],
    *,
    again: bool = False,
) -> Path:
    """The result file of an evaluation; computes it unless there is one of the same weights, data and settings.

    Args:
        model: A model, or a file of features.
        task: "test", "probe", "analyze" or "data".
        data: What it is evaluated on, as `describe_data` says.
        settings: Everything else that the result depends on.
        compute: Returns the score.
        again: Whether to compute it even if there is a result.
    """
    path = result_path(model, task, data, settings)
    if ranks.share(again or not is_known(model, path, data)):
        score = compute()
        if not ranks.RANK:
            cut = {"cut_files": score.num_cut_files} if score.num_cut_files else {}
            write_result(
                model,
                path,
                task=task,
                value=score.value,
                unit=score.unit,
                data={**data, **cut},
                settings=settings,
                images=score.images,
                drawing=score.drawing,
                **score.more,
            )
        ranks.barrier()
    return path


def num_cut_files(features: Sequence[StoredFeatures]) -> int:
    """How many files of some extracted features end early."""
    return sum(some.num_cut for some in features)
