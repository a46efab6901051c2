from pathlib import Path

import pytest

from builders.errors import UserError
from fakeit_train.cli import main
from fakeit_train.settings import load_config


def test_config__settings_apply_at_any_depth() -> None:
    config = load_config("digits", ["num_epochs=3", "optim.learning_rate=0.5", "crops.ratio=1,1", "log_keys=true"])
    assert (config.num_epochs, config.optim.learning_rate, config.crops.ratio, config.log_keys) == (
        3,
        0.5,
        (1.0, 1.0),
        True,
    )


def test_config__items_of_lists_and_options_of_networks_are_settings() -> None:
    settings = ["crops.kinds.1.num_crops=2", "crops.kinds.0.scale=0.1,0.9", "crops.erasing_color=1,2,3"]
    config = load_config(
        "digits", [*settings, "backbone.arch_options.drop_path_rate=0.1", "backbone.arch_options.act_layer=gelu"]
    )
    assert [kind.num_crops for kind in config.crops.kinds] == [1, 2] and config.crops.kinds[0].scale == (0.1, 0.9)
    assert config.crops.erasing_color == (1, 2, 3)
    assert config.backbone.arch_options["drop_path_rate"] == 0.1 and config.backbone.arch_options["act_layer"] == "gelu"
    assert (
        config.backbone.arch_options["stem_width"]
        == 24
        == load_config("digits", []).backbone.arch_options["stem_width"]
    )


def test_config__help_shows_every_setting_and_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["digits", "--help"])
    page = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "--data CLONE" in page and "Settings of 'digits', for --set NAME=VALUE" in page
    names = [
        "optim.name",
        "crops.kinds.1.num_crops",
        "backbone.arch_options.stem_width",
        "mixing.cutmix",
        "validation.every",
    ]
    assert [name for name in names if f" {name} " not in page] == [] and "(default: 24 48 96 192)" in page


def test_config__settings_are_checked_together(tmp_path: Path) -> None:
    settings = ["validation.every=3", "validation.data=clone", "mixing.mixup=0.8", "augmentation=plain"]
    assert load_config("digits", settings).validation.every == 3


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
        ("digits", ["crops.kinds=3"], "must be of type"),
        ("digits", ["crops.kinds.2.size=8"], "number the items from 0 to 1 and name a field of one"),
        ("digits", ["crops.kinds.1=8"], "number the items from 0 to 1 and name a field of one"),
        ("digits", ["crops.kinds.1.sise=8"], "unknown setting 'crops.kinds.1.sise'; did you mean size"),
        ("digits", ["crops.kinds.1.size=0"], "size 0 .* not a valid kind of crops"),
        ("digits", ["crops.rand_augment_magnitude=31"], "from 0 to 30"),
        ("digits", ["crops.erasing_color=1,2,256"], "three levels from 0 to 255"),
        ("digits", ["crops.erasing_scale=0.1,2"], "two numbers above 0 and up to 1"),
        ("digits", ["crops.ratio=0,1"], r"crops\.ratio is 0,1, but must be two numbers above 0"),
        ("digits", ["crops.flip=2"], "crops.flip is 2.0, but must be a probability"),
        ("digits", ["validation.every=3"], "there are no validation images; add --val DATA"),
        ("digits", ["data.where=nsfw"], "'nsfw' is not a condition"),
        ("digits", ["objective=crossentropy"], "did you mean cross_entropy"),
        ("digits", ["optim.layers=last"], "unknown optim.layers 'last'; choose from all, head"),
        ("digits", ["optim.layer_decay=0"], "must be above 0 and at most 1"),
        ("digits", ["optim.betas=0.9,1"], "must be at least 0 and below 1"),
        ("digits", ["validation.keep_best=true"], "there are no validation images; add --val DATA"),
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
