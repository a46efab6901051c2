"""Tests of what the commands print and how they exit. Some commands run in real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders.cli import main as cli
from builders.format.manifest import Manifest
from tests import in_process


def call(*arguments: object) -> in_process.Ended:
    return in_process.call(cli.main, *arguments)


def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command in its own process."""
    command = [sys.executable, "-m", "builders", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_cli__list_and_plan_show_recipes() -> None:
    assert "digits_sd/c_h_inside_b_cfg2" in run("list").stdout
    shown = call("plan", "digits_sd/c_cfg2", "--limit", 2, "--images-per-class", 1000).stdout.splitlines()
    assert shown[0] == "digits_sd/c_cfg2: 10,000 images, 10 classes, 20 shards of 500"
    assert shown[1].startswith(
        "model fakeit/digits-sd: Stable Diffusion 1.x, found by its class StableDiffusionPipeline "
    )
    assert shown[2] == "settings: 32x32, 4 steps of DPMSolverMultistepScheduler, guidance 2, float32"
    assert shown[3] == "presets of this model: dpm8"
    assert shown[8] == "disk: about 40.9 MB for the clone, 7.3 MB for the model"
    assert len(shown) == 9 and shown[4].split()[1] == "n13742358_00000000"


def test_cli__make_verify_card_sheet(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "clone"
    requested = ("make", "real_images/test", out, "--source", scans / "test", "--images-per-class", 3)
    made = call(*requested)
    assert made.returncode == 0 and "load_dataset" in made.stdout
    assert call(*requested).stdout == made.stdout
    assert "no faults in" in call("verify", out, "--deep").stdout
    assert call("card", out, "--check").returncode == 0
    (out / "README.md").write_text("stale")
    assert call("card", out, "--check").returncode == 1
    assert call("verify", out).returncode == 1
    assert call("card", out).returncode == 0 == call("verify", out).returncode
    assert (
        call("sheet", out, "-o", tmp_path / "sheet.png").returncode == 0
        and (tmp_path / "sheet.png").stat().st_size > 1000
    )


def test_cli__two_simultaneous_runs_finish_one_output(scans: Path, tmp_path: Path) -> None:
    requested = ("make", "real_images/test", tmp_path / "c", "--source", scans / "test", "--shard-size", 20)
    command = [sys.executable, "-m", "builders", *map(str, requested)]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert call("verify", tmp_path / "c").returncode == 0 and not (tmp_path / "c" / "_making").exists()


def test_cli__shards_are_made_separately_and_finalized_together(scans: Path, tmp_path: Path) -> None:
    requested = ("make", "real_images/test", tmp_path / "c", "--source", scans / "test", "--shard-size", 100)
    assert "run again without --shards" in call(*requested, "--shards", "0:2").stdout
    assert not (tmp_path / "c" / "clone.json").exists()
    assert call("verify", tmp_path / "c").returncode == 2
    assert call(*requested).returncode == 0 == call("verify", tmp_path / "c").returncode


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["make", "digit_sd/c_cfg2", "OUT"], "unknown builder 'digit_sd'; did you mean digits_sd?"),
        (["make", "digits_sd/c_cfg3", "OUT"], "unknown config 'c_cfg3' of 'digits_sd'; did you mean"),
        (["make", "digits_sd", "OUT"], "'digits_sd' is not a recipe; write builder/config"),
        (["make", "no.json", "OUT"], "recipe file 'no.json' cannot be read"),
        (["make", "digits_sd/c_cfg2", "OUT", "--prompt", "{x}"], "unknown prompt field {x}"),
        (["make", "digits_sd/c_cfg2", "OUT", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["make", "digits_sd/c_cfg2", "OUT", "--images-per-class", "0"], "0 images per class are too few"),
        (["make", "digits_sd/c_cfg2", "OUT", "--shards", "3:9"], "--shards 3:9 is not within"),
        (["make", "digits_sd/c_cfg2", "OUT", "--shards", "x"], "--shards is 'x'; write A:B"),
        (["make", "digits_sd/c_cfg2", "OUT", "--runner", "slurn"], "unknown runner 'slurn'"),
        (["make", "digits_sd/c_cfg2", "OUT", "--workers", "-1"], "--workers -1 --tasks 64 make nothing"),
        (["make", "digits_sd/c_cfg2", "OUT", "--runner", "slurm"], "this is not a task of a Slurm array"),
        (
            ["make", "digits_sd/c_cfg2", "OUT", "--print"],
            "--print and --sbatch are options of --runner slurm, not of local",
        ),
        (["make", "digits_sd/c_cfg2", "OUT", "--address", "x"], "--address is an option of --runner ray, not of local"),
        (["status", "/nowhere"], "'/nowhere' holds no clone and none is being made there"),
        (["make", "digits_sd/c_cfg2", "OUT", "--model", "/tmp"], "model '/tmp' has no model_index.json"),
        (["make", "digits_sd/c_cfg2", "OUT", "--scale", "2", "--images-per-class", "3"], "give one of them"),
        (["make", "real_images/test", "OUT"], "give --source DIR"),
        (["make", "digits_sd/c_cfg2", "OUT", "--width", "30"], "the model refuses a setting"),
        (["make", "digits_sd/c_cfg2", "OUT", "--guidance-scale", "nan"], "guidance_scale is nan"),
        (["plan", "digits_sd/c_cfg2", "--scale", "nan"], "--scale is nan"),
        (["make", "digits_sd/c_cfg2", "OUT", "--images-per-class", "1000000000"], "too many"),
        (["sheet", "CLONE", "-o", "x.xyz"], "cannot be drawn"),
        (["sheet", "CLONE", "-o", "/nowhere/x.png"], "No such file or directory at '/nowhere/x.png'"),
        (["make", "real_images/test", "OUT", "--source", "/nowhere"], "'/nowhere' is not a directory"),
        (
            ["make", "digits_sd/c_cfg2", "/dev/null/x"],
            "cannot write to '/dev/null/x/_making/runs': Not a directory; choose",
        ),
        (
            ["make", "digits_sd/c_cfg2", "CLONE"],
            "holds a different recipe (name 'real_images/test', not 'digits_sd/c_cfg2'",
        ),
        (["verify", "/nowhere"], "no clone at '/nowhere'"),
        (["sheet"], "no clone to draw"),
        (["sheet", "CLONE", "--classes", "x"], "the clone has no class 'x'"),
        (["card"], "no card to write"),
        (["card", "imagenet_1k_sd/c"], "unknown config 'c' of 'imagenet_1k_sd'"),
        (["redo", "CLONE", "x"], "holds real images"),
        (["verify", "CLONE", "--workers", "0"], "0 workers check nothing"),
        (["plan", "custom_sd/c_cfg2"], "custom_sd needs its classes; give --source"),
        (["plan", "imagenet_1k_sd/c_cfg2", "--source", "x"], "'imagenet_1k_sd' has its own classes"),
        (["plan", "imagenet_1k_sd/c_cfg2", "--counts", "/nowhere"], "'/nowhere' cannot be read"),
        (["plan", "imagenet_1k_sd/c_cfg2", "--hypernym-lemmas", "x"], "choose from first, all"),
        (["plan", "imagenet_1k_sd/c_cfg2", "--safety", "maybe"], "unknown safety 'maybe'; choose from off, flag, drop"),
        (["plan", "digits_sd/c_cfg2", "--at", "2000"], "--at 2000 is not within"),
        (["make", "digits_sd/c_cfg2", "OUT", "--safety", "drop"], "has no safety checker, which drop needs"),
        (["plan", "digits_sd/c_cfg2", "--limit", "-5"], "--limit is -5"),
        (["plan", "digits_sd/c_cfg2", "--prompt", "caf\udce9 {c}"], "which is not valid UTF-8"),
        (
            ["make", "digits_sd/c_cfg2", "OUT", "--scheduler", "RePaintScheduler"],
            "unknown scheduler 'RePaintScheduler'",
        ),
        (["make", "digits_sd/c_cfg2", "OUT", "--model", "bad id!!"], "the configuration of 'bad id!!' cannot be read"),
        (["plan", "CLONE/clone.json", "--safety", "drop"], "real images are not checked"),
        (["grid", "digits_sd/c_cfg2", "x"], "has no class 'x'"),
        (["grid", "digits_sd/c_cfg2", "x", "-o", "x.jpg"], "is no .png"),
        (["plan", "CLONE/clone.json", "--hypernym-parent", "2"], "lists its classes already"),
        (["verify", "nosuch://x"], "cannot open 'nosuch://x'"),
    ],
)
def test_cli__mistakes_are_one_sentence_and_status_2(
    arguments: list[str], words: str, tmp_path: Path, finished: tuple[Path, Manifest]
) -> None:
    wheres = {"OUT": tmp_path / "out", "CLONE": finished[0]}
    ended = call(*(wheres.get(argument, argument.replace("CLONE", str(finished[0]))) for argument in arguments))
    message = ended.stderr.strip().splitlines()
    assert ended.returncode == 2, ended
    assert len(message) == 1 and message[0].startswith("fakeit-build: ") and words in message[0]
    assert not (tmp_path / "out" / "clone.json").exists()


def test_cli__wrong_types_are_status_2_and_similar_options_are_suggested() -> None:
    assert call("plan", "digits_sd/c_cfg2", "--seed", "x").returncode == 2
    ended = call("plan", "digits_sd/c_cfg2", "--guidence-scale", "3")
    assert ended.returncode == 2 and "--guidance-scale" in ended.stderr


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("diffusers", ["make", "digits_sd/c_cfg2", "OUT"])],
)
def test_cli__a_missing_extra_names_the_install_command(module: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {module!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    ended = run(*(str(tmp_path / "out") if a == "OUT" else a for a in arguments), PYTHONPATH=str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        f"fakeit-build: '{module}' is not installed, and this command needs it: pip install 'fakeit-sd[build]'"
    )


def test_cli__an_interrupted_run_is_one_sentence(tmp_path: Path) -> None:
    import signal
    import time

    command = [
        sys.executable,
        "-m",
        "builders",
        "make",
        "digits_sd/c_cfg2",
        str(tmp_path / "out"),
        "--images-per-class",
        "5000",
    ]
    # Tests that a shell starts in the background ignore interrupts, and their children inherit that.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    while not (tmp_path / "out" / "_making").exists():
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    message = process.communicate()[1].strip().splitlines()
    sentence = "fakeit-build: interrupted; what is finished is kept, run the command again to continue"
    assert (process.returncode, message) == (130, [sentence])


def test_cli__an_unfinished_clone_is_recognized(clone: Path) -> None:
    (clone / "clone.json").rename(clone / "clone.txt")
    assert "no clone at" in call("verify", clone).stderr
    (clone / "_making").mkdir()
    (clone / "_making" / "recipe.json").write_text("{}")
    assert "is unfinished; run its 'fakeit-build make' again" in call("verify", clone).stderr


def test_cli__a_label_out_of_range_is_a_fault(clone: Path) -> None:
    manifest = json.loads((clone / "clone.json").read_text())
    manifest["label_names"] = manifest["label_names"][:4]
    (clone / "clone.json").write_text(json.dumps(manifest))
    ended = call("verify", clone)
    assert ended.returncode == 1 and "label 9 is out of range 0 to 3" in ended.stdout
