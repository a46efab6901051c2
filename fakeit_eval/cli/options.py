"""The options that `test`, `probe`, `analyze` and `suite` share."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from builders.errors import UserError

if TYPE_CHECKING:
    from fakeit_eval.evaluate.probe import ProbeSettings
    from fakeit_eval.features.extract import Loading
    from fakeit_eval.models import Model

MODEL_HELP = (
    "Run directories of fakeit-train, torchvision/NAME[@WEIGHTS], timm/NAME[@WEIGHTS], "
    "state dicts (.pth, .safetensors), dinov2 (DINOv2 small, 88 MB, Apache-2.0), or pixels."
)
Models = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL", help=MODEL_HELP)]
Data = Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA …")]


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    root: str = ""
    """Directory of the published datasets, laid out as docs/evaluation.md says."""
    out: Path | None = None
    """Folder in which results/ is written; by default the run itself, or evaluations/<name>."""
    arch: str = "torchvision/resnet50"
    """Architecture of a state dict in a file."""
    head: str = "linear"
    """Classifier of a state dict in a file: linear or cosine."""
    temperature: float = 0.1
    """Temperature of a cosine classifier; the cosine is divided by it."""
    as_published: bool = False
    """Read all images as the benchmarks' authors do: ignore the EXIF rotation, decode cut files up to their end. This
    is the default for datasets by name."""
    as_seen: bool = False
    """Read all images as a viewer shows them: rotated upright, transparent ones over white. This is the default for
    your own images."""
    batch_size: int = 256
    """Images per forward."""
    workers: int | None = None
    """Processes that load images; by default one for each core, up to 8."""
    precision: str = "float32"
    """Precision of networks: float32, or bfloat16, which is faster on a GPU."""
    cache: Path | None = None
    """Folder of cached features and searches; by default $FAKEIT_CACHE or ~/.cache/fakeit."""
    again: bool = False
    """Evaluate even if there is a result already."""
    format: str = "markdown"
    """Format of the printed table: markdown, terminal, csv or latex."""

    def __post_init__(self) -> None:
        from fakeit_eval.reporting.report import check_format

        check_format(self.format)
        if self.as_published and self.as_seen:
            raise UserError("--as-published and --as-seen exclude each other; give one of them")

    @property
    def policy(self) -> str:
        """How all images are read; "" leaves it to each dataset."""
        from builders.images.read import AS_PUBLISHED, AS_SEEN

        return AS_PUBLISHED if self.as_published else AS_SEEN if self.as_seen else ""

    def loading(self) -> "Loading":
        """How images are loaded, and where features are cached."""
        from fakeit_eval.features.extract import Loading

        given: dict[str, Any] = {"cache": self.cache} if self.cache else {}
        if self.workers is not None:
            given["workers"] = self.workers
        return Loading(batch_size=self.batch_size, precision=self.precision, **given)

    def models(self, specs: tuple[str, ...]) -> "list[Model]":
        """The models that were named; with several, each has its own folder below --out."""
        from fakeit_eval.models import NOTICES, FileNetwork, open_model
        from fakeit_eval.reporting.results import as_file_name

        if not specs:
            raise UserError(
                "no model to evaluate; give at least one run directory, torchvision/NAME, timm/NAME or a state dict"
            )
        for spec in specs:
            if spec in NOTICES:
                print(f"fakeit-eval: {NOTICES[spec]}", file=sys.stderr)
        outs = [self.out / as_file_name(spec) if self.out else None for spec in specs]
        if len(specs) == 1:
            outs = [self.out]
        network = FileNetwork(arch=self.arch, head=self.head, temperature=self.temperature)
        return [open_model(spec, out, network) for spec, out in zip(specs, outs, strict=True)]


Common = Annotated[CommonOptions, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """How classifiers are fitted."""

    probe: str = ""
    """logistic_regression, sgd or k_nearest_neighbors; by default the paper's choice for the task."""
    trials: int = 30
    """Trials of the hyper-parameter search."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the search and of random splits; the result is their mean."""
    any_count: bool = False
    """Accept splits of other sizes than the paper's; the result says so."""

    def settings(self) -> "ProbeSettings":
        from fakeit_eval.evaluate.probe import ProbeSettings

        return ProbeSettings(**vars(self))


Probing = Annotated[ProbeOptions, tyro.conf.arg(name="")]
