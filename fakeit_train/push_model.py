"""Pushes a trained network to a model repo of the Hugging Face Hub, from where timm loads it by one line.

    timm.create_model("hf-hub:user/name", pretrained=True)

The repo gets weights and `config.json` as timm writes them, the run's own description and settings, and a model card.
"""

import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from builders.errors import UserError, first_line
from builders.networks.backbone import DESCRIPTION, Backbone, load_backbone
from builders.storage.retry import http_status, retry
from builders.versions import versions

if TYPE_CHECKING:
    from torch import nn

RUN_SETTINGS, CARD = "training.json", "README.md"
HUB_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+?)(?:@[^/]*)?(?:/.*)?")
TOLERANCE, NUM_ATTEMPTS = 1e-4, 5
CARD_TEXT = """---
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- timm
- synthetic-images
{datasets}---

# {name}

`{arch}`, trained with fakeit on {trained_on}, with {num_classes} classes.

```python
import timm

model = timm.create_model("hf-hub:{name}", pretrained=True)
```

Images are resized to {size} pixels (bicubic, shorter side), cropped in the middle, and normalized with mean {mean} and
standard deviation {std}.

## Training

| setting | value |
|---|---|
{table}

All settings are in `{settings}`, for a config of `fakeit-train`:

```bash
{command}
```

Versions: {versions}.

## Results

{results}

```bash
fakeit-eval probe timm/hf-hub:{name} --data CLONE_OR_FOLDERS
```
"""
SHOWN = (
    "num_epochs",
    "objective",
    "augmentation",
    "data.batch_size",
    "optim.name",
    "optim.learning_rate",
    "optim.weight_decay",
)
"""Settings in the model card."""


def push_model(run: Path, repo: str, *, private: bool = False) -> str:
    """Pushes the network of a finished run; returns the address of its page.

    Raises:
        UserError: the run is unfinished, timm has no such network, or the Hub refuses.
    """
    backbone, network = load_backbone(run)
    model = as_timm_model(backbone, network)
    settings = _settings(run)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_timm_files(model, backbone, folder)
        (folder / DESCRIPTION).write_bytes((run / DESCRIPTION).read_bytes())
        (folder / RUN_SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        (folder / CARD).write_text(render_model_card(run, repo, backbone, settings), encoding="utf-8")
        return _upload(folder, repo, private)


def as_timm_model(backbone: Backbone, network: "nn.Module") -> "nn.Module":
    """Returns timm's network with the same weights; torchvision's ResNets have the same names there.

    Raises:
        UserError: timm has no network that computes the same.
    """
    import timm
    import torch

    if backbone.head == "cosine":
        raise UserError("timm has no cosine classifier; push a run with --set backbone.head=linear")
    try:
        made: nn.Module = timm.create_model(backbone.arch, num_classes=len(backbone.classes), **backbone.arch_options)
        made.load_state_dict(network.state_dict())
        pixels = torch.randn(2, 3, backbone.input_size, backbone.input_size)
        with torch.inference_mode():
            is_same = torch.allclose(made.eval()(pixels), network(pixels), rtol=TOLERANCE, atol=TOLERANCE)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"timm cannot load '{backbone.arch}' of {backbone.library} ({first_line(error)}); push a run of timm's networks"
        ) from None
    if not is_same:
        raise UserError(
            f"timm's '{backbone.arch}' computes something else than {backbone.library}'s; push a run of timm's"
        )
    return made


def _write_timm_files(model: "nn.Module", backbone: Backbone, folder: Path) -> None:
    from timm.models import save_for_hf

    size = (3, backbone.input_size, backbone.input_size)
    pixels: dict[str, Any] = {"input_size": size, "mean": backbone.mean, "std": backbone.std, "crop_pct": 1.0}
    pixels |= {"interpolation": "bicubic", "crop_mode": "center"}
    names = backbone.class_names or backbone.classes
    save_for_hf(
        model,
        str(folder),
        model_config={
            "num_classes": len(backbone.classes),
            "label_names": list(backbone.classes),
            "label_descriptions": dict(zip(backbone.classes, names, strict=True)),
            "pretrained_cfg": pixels,
        },
        model_args=backbone.arch_options,
        safe_serialization=True,
        data_config=pixels,
    )


def _settings(run: Path) -> dict[str, Any]:
    """Returns the run's settings without the folders of this machine; `RUN/best` has those of its run."""
    folder = run if (run / "config.json").is_file() else run.parent
    try:
        settings: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        urls = [str(url) for url in settings["data_urls"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the settings of '{run}' cannot be read ({first_line(error)}); train it again") from None
    settings["data_urls"] = [_without_folders(url) for url in urls]
    settings["data"]["cache_dir"] = ""
    for section, name in ((settings["data"], "exclude"), (settings["validation"], "data")):
        section[name] = _without_folders(section[name])
    for name in ("init", "objective"):
        settings[name] = _without_folders(settings.get(name, ""))
    return settings


def _without_folders(location: str) -> str:
    """Returns the name of a file or folder of this machine; a URL or a dataset of the Hub as it is."""
    return location if "://" in location or location.startswith("hub:") else Path(location).name


def render_model_card(run: Path, repo: str, backbone: Backbone, settings: dict[str, Any]) -> str:
    """Returns the model card: how to load the network, what it was trained on, how, and what it reaches."""
    datasets = [found[1] for url in settings["data_urls"] if (found := HUB_URL.fullmatch(url))]
    linked = [f"[{name}](https://huggingface.co/datasets/{name})" for name in datasets]
    command = ["fakeit-train", "CONFIG", "--data", *settings["data_urls"], "--out", "run"]
    return CARD_TEXT.format(
        name=repo,
        datasets="".join(["datasets:\n", *(f"- {name}\n" for name in datasets)]) if datasets else "",
        arch=backbone.arch,
        trained_on=" and ".join(linked) or f"the clone {backbone.trained_on}",
        num_classes=len(backbone.classes),
        size=backbone.input_size,
        mean=list(backbone.mean),
        std=list(backbone.std),
        command=shlex.join(command),
        settings=RUN_SETTINGS,
        table="\n".join(f"| `{name}` | {_setting(settings, name)} |" for name in SHOWN),
        versions=", ".join(f"{name} {value}" for name, value in versions("torch", "torchvision", "timm").items()),
        results=_results(run),
    )


def _setting(settings: dict[str, Any], name: str) -> Any:
    found: Any = settings
    for piece in name.split("."):
        found = found.get(piece, "") if isinstance(found, dict) else ""
    return found


def _results(run: Path) -> str:
    """Returns a table of what the run reached in training and of its evaluations."""
    rows: list[tuple[str, str, float, str]] = []
    for path in sorted((run / "results").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            rows.append((result["task"], result["data"]["name"], float(result["value"]), result["unit"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not rows:
        return "Not evaluated yet (`fakeit-eval test` and `probe`)."
    lines = [f"| {task} | {name} | {value:.2f} {unit} |" for task, name, value, unit in rows]
    return "\n".join(["| evaluation | data | result |", "|---|---|---|", *lines])


def _upload(folder: Path, repo: str, private: bool) -> str:
    api = HfApi()

    def upload() -> str:
        created = api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(created.repo_id).private:
            raise UserError(
                f"'{repo}' already exists and is public; make it private on its page, or leave out --private"
            )
        api.upload_folder(repo_id=created.repo_id, folder_path=folder, commit_message="Push a network of fakeit-train")
        return str(created)

    try:
        return retry(upload, num_attempts=NUM_ATTEMPTS)
    except HFValidationError as error:
        raise UserError(f"'{repo}' is not a name on the Hub ({first_line(error)}); write user/name") from None
    except HfHubHTTPError as error:
        advice = "run 'hf auth login', or set HF_TOKEN to a token that may write there"
        raise UserError(f"the Hub refuses '{repo}' ({http_status(error)}: {first_line(error)}); {advice}") from None
    except OSError as error:
        raise UserError(f"the Hub cannot be reached ({first_line(error)}); run the push again") from None
