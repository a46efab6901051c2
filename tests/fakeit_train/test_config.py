from pathlib import Path

import pytest

from builders.errors import UserError
from fakeit_train.config import load_config


def test_config__settings_apply_at_any_depth() -> None:
    config = load_config("digits", ["num_epochs=3", "optim.learning_rate=0.5", "crops.ratio=1,1", "log_keys=true"])
    assert (config.num_epochs, config.optim.learning_rate, config.crops.ratio, config.log_keys) == (
        3,
        0.5,
        (1.0, 1.0),
        True,
    )


def test_config__digits_are_never_mirrored() -> None:
    assert load_config("digits", []).crops.flip == 0.0


def test_config__loads_a_python_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from fakeit_train.config import TrainConfig\nCONFIG = TrainConfig(num_epochs=7)\n")
    assert load_config(str(path), []).num_epochs == 7


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("digit", [], "unknown config 'digit'; did you mean digits"),
        ("digits", ["num_epoch=3"], "unknown setting 'num_epoch'; did you mean num_epochs"),
        ("digits", ["optim.lerning_rate=3"], "did you mean learning_rate"),
        ("digits", ["num_epochs=many"], "'num_epochs' is 'many'.*int"),
        ("digits", ["num_epochs"], "has no value"),
        ("digits", ["num_epochs=0"], "num_epochs is 0"),
        ("digits", ["num_epochs.x=0"], "has no fields"),
        ("digits", ["crops.ratio=1"], "must be of type"),
        ("digits", ["crops.ratio=0,1"], r"crops\.ratio is 0,1, but must be two numbers above 0"),
        ("digits", ["crops.flip=2"], "crops.flip is 2.0, but must be a probability"),
        ("digits", ["validation.every=3"], "there is no validation clone; add --val CLONE"),
        ("digits", ["data.where=nsfw"], "'nsfw' is not a condition"),
        ("digits", ["objective=crossentropy"], "did you mean cross_entropy"),
        ("digits", ["optim.layers=last"], "unknown optim.layers 'last'; choose from all, head"),
        ("digits", ["optim.layer_decay=0"], "must be above 0 and at most 1"),
        ("digits", ["optim.betas=0.9,1"], "must be at least 0 and below 1"),
        ("digits", ["validation.keep_best=true"], "there is no validation clone; add --val CLONE"),
        ("digits", ["timeout_minutes=0"], "timeout_minutes is 0.0, but must be above 0"),
        ("digits", ["augmentation=mixup"], "unknown augmentation 'mixup'"),
        ("digits", ["precision=int8"], "unknown precision 'int8'"),
        ("digits", ["label_smoothing=1"], "label_smoothing is 1.0"),
        ("digits", ["crop_weights=1"], "must be 2 non-negative numbers"),
        ("digits", ["optim.accumulation=0"], "optim.accumulation is 0"),
        ("digits", ["optim.ema=1"], "optim.ema is 1.0"),
        ("imagenet_100_sd", ["data.cache_gib=0"], "data.cache_gib is 0.0"),
        ("digits", ["data.num_workers=-1"], "num_workers is -1"),
    ],
)
def test_config__mistakes_are_reported(name: str, settings: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_config(name, settings)


def test_config__the_rate_may_grow_with_the_batch() -> None:
    settings = ["data.batch_size=1024", "optim.learning_rate=0.1"]
    assert load_config("digits", settings).optim.peak(1024) == 0.1
    assert load_config("digits", [*settings, "optim.scale_rate=true"]).optim.peak(1024) == 0.4


def test_config__commas_in_quotes_do_not_separate() -> None:
    config = load_config("digits", ["data.where=class_name == 'tench, Tinca tinca', nsfw != 1"])
    assert config.data.where == ("class_name == 'tench, Tinca tinca'", "nsfw != 1")


def test_config__an_invalid_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from fakeit_train.config import TrainConfig\nCONFIG = TrainConfig(num_epoch=7)\n")
    with pytest.raises(UserError, match=r"mine.py' cannot be read \(TypeError: .*num_epoch.*; fix it"):
        load_config(str(path), [])
