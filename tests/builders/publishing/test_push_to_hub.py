import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builders.format.manifest import Manifest
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from builders.prompts.canonical_rows import with_prompts
from builders.recipes.recipe import Recipe
from tests.conftest import EXECUTION
from tests.loopback.hub import Hub, PullRequest, blob_of, hub_environment
from tests.loopback.server import Fault, failing

READ_BACK = """
import hashlib, io, json, sys, tarfile
from pathlib import Path
import datasets, webdataset
from huggingface_hub import hf_hub_url, snapshot_download
from builders.format.shard_cache import ShardCache
from builders.format.open_clone import open_clone

repo, folder = sys.argv[1], Path(sys.argv[2])
sha256 = lambda content: hashlib.sha256(content).hexdigest()
raw = lambda rows: {row["__key__"]: sha256(row["jpg"]["bytes"]) for row in rows}
undecoded = lambda dataset: dataset.cast_column("jpg", datasets.Image(decode=False))
clone = open_clone(f"hf://datasets/{repo}")
cached = open_clone(f"hf://datasets/{repo}", ShardCache(folder / "cache", 10**8))
snapshot = Path(snapshot_download(repo, repo_type="dataset"))
urls = [hf_hub_url(repo, shard.name, repo_type="dataset") for shard in clone.manifest.shards]
web = webdataset.WebDataset([f"pipe:curl -sf {url}" for url in urls], shardshuffle=False)
print(json.dumps({
    "prepared": raw(undecoded(datasets.load_dataset(repo, split="test"))),
    "streaming": raw(undecoded(datasets.load_dataset(repo, split="test", streaming=True))),
    "webdataset": {sample["__key__"]: sha256(sample["jpg"]) for sample in web},
    "snapshot": {sample.key: sha256(sample.image) for sample in open_clone(snapshot)},
    "ranges": {sample.key: sha256(sample.image) for sample in clone},
    "cached": {sample.key: sha256(sample.image) for sample in cached},
    "views": {view.key: sha256(view.image) for view in clone._views_past_cache(range(len(clone))).values()},
}))
"""


Ended = subprocess.CompletedProcess[str]


def push(hub: Hub, clone: Path, *options: str, token: str = "hf_loopback", xet: bool = False) -> Ended:
    environment = hub_environment(hub, clone.parent / "home", token=token, xet=xet)
    command = [sys.executable, "-m", "builders", "push", str(clone), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def message(ended: Ended) -> str:
    """Returns the only line on stderr of a command that refused."""
    assert ended.returncode == 2, ended
    (line,) = ended.stderr.strip().splitlines()
    return line


def contents(clone: Path) -> dict[str, bytes]:
    return {str(path.relative_to(clone)): path.read_bytes() for path in clone.rglob("*") if path.is_file()}


def in_repo(hub: Hub, repo: str = "user/digits", revision: str = "main") -> dict[str, bytes]:
    return {path: content for path, content in hub.files(repo, revision).items() if path != ".gitattributes"}


@pytest.mark.parametrize("xet", [False, pytest.param(True, marks=pytest.mark.long)])
def test_push_to_hub__every_reader_gets_what_was_pushed(clone: Path, hub: Hub, tmp_path: Path, xet: bool) -> None:
    ended = push(hub, clone, "user/digits", "--tag", xet=xet)
    assert ended.returncode == 0, ended.stderr
    assert "datasets.load_dataset('user/digits', split='test')" in ended.stdout and "hf_loopback" not in ended.stdout
    assert in_repo(hub) == contents(clone) and len(hub.repos["user/digits"].tags) == 1
    environment = hub_environment(hub, tmp_path / "reader", xet=xet)
    read = subprocess.run(
        [sys.executable, "-c", READ_BACK, "user/digits", str(tmp_path)], env=environment, capture_output=True, text=True
    )
    found = json.loads(read.stdout.splitlines()[-1])
    manifest = json.loads((clone / "clone.json").read_text())
    assert len(found["prepared"]) == manifest["num_samples"]
    assert {reader for reader, samples in found.items() if samples != found["snapshot"]} == set()


def test_push_to_hub__prompts_come_and_go_with_their_clone(generated: Recipe, hub: Hub, tmp_path: Path) -> None:
    captioned, plain = tmp_path / "captioned", tmp_path / "plain"
    (tmp_path / "t.txt").write_text("{c}\na {c}\n")
    make_clone(Plan(with_prompts(generated, str(tmp_path / "t.txt")), 1), str(captioned), execution=EXECUTION)
    make_clone(Plan(generated, 1), str(plain), execution=EXECUTION)
    assert push(hub, captioned, "user/digits").returncode == 0
    assert in_repo(hub) == contents(captioned) and "prompts.parquet" in contents(captioned)
    assert push(hub, plain, "user/digits", "--replace").returncode == 0
    assert in_repo(hub) == contents(plain)


@pytest.mark.long
def test_push_to_hub__large_files_are_sent_in_chunks(clone: Path, hub: Hub) -> None:
    hub.chunk_bytes = 7000
    assert push(hub, clone, "user/digits").returncode == 0
    assert in_repo(hub) == contents(clone) and any(hub.pieces.iterdir())


def test_push_to_hub__a_second_push_sends_nothing(clone: Path, hub: Hub) -> None:
    push(hub, clone, "user/digits")
    before = hub.traffic.received
    assert push(hub, clone, "user/digits").returncode == 0
    assert hub.traffic.received - before < 1000 and len(hub.repos["user/digits"].pulls) == 1


@pytest.mark.long
def test_push_to_hub__growing_sends_only_new_files_and_a_smaller_clone_removes_old_ones(
    real_plan: Plan, hub: Hub, tmp_path: Path
) -> None:
    out = tmp_path / "clone"
    make_clone(Plan(real_plan.recipe, 4), str(out))
    small = Path(shutil.copytree(out, tmp_path / "small"))
    push(hub, out, "user/digits")
    make_clone(real_plan, str(out))
    hub.traffic.requests.clear()
    assert push(hub, out, "user/digits").returncode == 0 and in_repo(hub) == contents(out)
    new_shards = len(list(out.rglob("*.tar"))) - len(list(small.rglob("*.tar")))
    uploads = [name for name in hub.traffic.requests if name.startswith("PUT /lfs")]
    assert len(uploads) == new_shards + 1  # and the metadata
    assert push(hub, small, "user/digits").returncode == 0 and in_repo(hub) == contents(small)


@pytest.mark.long
def test_push_to_hub__several_clones_become_configs_of_a_repo(real_plan: Plan, hub: Hub, tmp_path: Path) -> None:
    for name, rounds in (("a", 1), ("b", 2)):
        make_clone(Plan(real_plan.recipe, rounds), str(tmp_path / name))
        assert push(hub, tmp_path / name, "user/digits", "--config", name).returncode == 0
    files = in_repo(hub)
    assert {p.removeprefix("a/"): c for p, c in files.items() if p.startswith("a/")} == contents(tmp_path / "a")
    code = """
import datasets
from builders.format.open_clone import open_clone
print([len(datasets.load_dataset("user/digits", name, split="test")) for name in ("a", "b")])
print([len(open_clone(f"hf://datasets/user/digits/{name}")) for name in ("a", "b")])
print(datasets.get_dataset_config_names("user/digits"))
"""
    environment = hub_environment(hub, tmp_path / "reader")
    read = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    lengths = [Plan(real_plan.recipe, rounds).num_samples for rounds in (1, 2)]
    assert read.stdout.splitlines()[-3:] == [str(lengths), str(lengths), "['a', 'b']"], read.stderr
    assert "configs (a, b); give --config" in message(push(hub, tmp_path / "a", "user/digits"))


@pytest.mark.long
def test_push_to_hub__a_clone_on_another_branch(clone: Path, hub: Hub, real_plan: Plan, tmp_path: Path) -> None:
    for name, rounds in (("main", 1), ("small", 2)):
        make_clone(Plan(real_plan.recipe, rounds), str(tmp_path / name))
    push(hub, tmp_path / "main", "user/digits")
    repo = hub.repos["user/digits"]
    ended = push(hub, tmp_path / "small", "user/digits", "--revision", "large")
    assert "revision='large'" in ended.stdout
    note = next(blob for path, blob in repo.commits[repo.refs["large"]].tree.items() if path == "README.md")
    repo.commit("large", {**repo.commits[repo.refs["large"]].tree, "notes.md": note}, "by hand")
    before = hub.traffic.received
    assert push(hub, clone, "user/digits", "--revision", "large").returncode == 0
    assert in_repo(hub, revision="large").keys() - {"notes.md"} == contents(clone).keys()
    assert contents(clone).items() <= in_repo(hub, revision="large").items()
    assert in_repo(hub) == contents(tmp_path / "main") and hub.traffic.received - before < 1.5 * size(clone)
    assert {pull.status for pull in repo.pulls} == {"merged", "closed"}
    assert push(hub, clone, "user/digits", "--revision", "large").returncode == 0
    repo.tags["v1"] = repo.refs["main"]
    for name in ("v1", "refs/pr/1"):
        assert f"'{name}' is not a branch of 'user/digits'" in message(
            push(hub, clone, "user/digits", "--revision", name)
        )


@pytest.mark.long
def test_push_to_hub__configs_on_another_branch(real_plan: Plan, hub: Hub, tmp_path: Path) -> None:
    for name, rounds in (("a", 1), ("b", 2)):
        make_clone(Plan(real_plan.recipe, rounds), str(tmp_path / name))
        assert push(hub, tmp_path / name, "user/digits", "--config", name, "--revision", "exp").returncode == 0
    for name in ("a", "b"):
        files = {p.removeprefix(f"{name}/"): c for p, c in in_repo(hub, revision="exp").items() if p.startswith(name)}
        assert files == contents(tmp_path / name)
    assert in_repo(hub) == {}


@pytest.mark.long
def test_push_to_hub__a_strangers_pull_request_is_not_merged(clone: Path, hub: Hub) -> None:
    push(hub, clone, "user/digits")
    repo = hub.repos["user/digits"]
    tree = repo.commits[repo.refs["main"]].tree
    evil = {**tree, "digits.py": tree["README.md"]}
    for author in ("stranger", "user"):
        pull = PullRequest(len(repo.pulls) + 1, "fakeit push to main", repo.refs["main"], author=author)
        repo.pulls.append(pull)
        repo.refs[f"refs/pr/{pull.number}"] = repo.refs["main"]
        repo.commit(f"refs/pr/{pull.number}", evil, "evil")
    repo.commit("main", {path: blob for path, blob in tree.items() if "tar" not in path}, "shards lost")
    assert push(hub, clone, "user/digits").returncode == 0 and in_repo(hub) == contents(clone)
    assert [pull.status for pull in repo.pulls] == ["merged", "draft", "closed", "merged"]


@pytest.mark.long
def test_push_to_hub__a_clone_that_changes_during_the_push_is_reported(clone: Path, hub: Hub) -> None:
    shard = next(clone.rglob("*.tar"))
    whole = shard.read_bytes()

    def choose(method: str, path: str) -> Fault | None:
        if path.endswith("/discussions") and method == "POST":
            shard.write_bytes(whole[:-1] + b"x")
        return None

    hub.traffic.choose = choose
    assert "has other content in 'user/digits' than when the push began" in message(push(hub, clone, "user/digits"))
    assert in_repo(hub) == {}


@pytest.mark.long
def test_push_to_hub__a_readme_of_others_is_not_replaced(clone: Path, hub: Hub) -> None:
    push(hub, clone, "user/digits")
    repo = hub.repos["user/digits"]
    for text, is_taken in ((b"---\nlicense: mit\n---\n", True), (b"# My thesis\n", False)):
        sha256 = hub.put(text)
        repo.commit("main", {"README.md": blob_of(text, sha256)}, "by hand")
        for options in ((), ("--config", "a")):
            ended = push(hub, clone, "user/digits", *options)
            if is_taken:
                assert ended.returncode == 0
                repo.commit("main", {"README.md": blob_of(text, sha256)}, "by hand")
            else:
                assert "holds files but no clone ('README.md')" in message(ended)


def size(clone: Path) -> int:
    return sum(map(len, contents(clone).values()))


def test_push_to_hub__network_failures_are_retried(clone: Path, hub: Hub) -> None:
    hub.traffic.choose = failing(0.15, seed=2)
    ended = push(hub, clone, "user/digits")
    assert ended.returncode == 0, ended.stderr
    assert in_repo(hub) == contents(clone)


@pytest.mark.long
def test_push_to_hub__a_commit_whose_answer_is_lost_is_not_made_twice(clone: Path, hub: Hub) -> None:
    lost = iter([Fault(drop_after=0)])
    hub.traffic.choose = lambda method, path: next(lost, None) if "/commit/" in path else None
    assert push(hub, clone, "user/digits").returncode == 0
    assert sum("/commit/" in name for name in hub.traffic.requests.elements()) == 1
    assert in_repo(hub) == contents(clone)


def test_push_to_hub__faulty_clones_and_foreign_repos_are_refused(
    clone: Path, hub: Hub, real_plan: Plan, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    make_clone(Plan(replace(real_plan.recipe, seed=5), 2), str(other))
    push(hub, clone, "user/digits")
    before = in_repo(hub)
    assert "holds a clone of another recipe (real_images/test); add --replace" in message(
        push(hub, other, "user/digits")
    )
    assert "without --config; push this one to another repo" in message(
        push(hub, other, "user/digits", "--config", "b")
    )
    assert in_repo(hub) == before
    assert push(hub, other, "user/digits", "--replace").returncode == 0 and in_repo(hub) == contents(other)
    shard = next(clone.rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-512])
    assert "faults, the first: data/000/test-0" in message(push(hub, clone, "user/new"))
    (clone / "clone.json").unlink()
    assert "no clone at" in message(push(hub, clone, "user/new")) and "user/new" not in hub.repos


@pytest.mark.long
def test_push_to_hub__refusals_of_the_hub_are_one_line_without_the_token(
    clone: Path, hub: Hub, finished: tuple[Path, Manifest]
) -> None:
    wrong = push(hub, clone, "user/digits", token="hf_wrong")
    assert "the Hub does not know you (401); run 'hf auth login'" in message(wrong) and "hf_wrong" not in wrong.stderr
    assert "you may not write to 'someone/digits' (403)" in message(push(hub, clone, "someone/digits"))
    assert "'a b' is not the name of a repo" in message(push(hub, clone, "a b"))
    assert "is not a name for a config" in message(push(hub, clone, "user/digits", "--config", "../x"))
    assert push(hub, clone, "user/digits").returncode == 0
    assert "already exists and is public" in message(push(hub, clone, "user/digits", "--private"))
    hub.forbidden.add("user/digits")
    hub.repos["user/digits"].commit("main", {}, "emptied")
    assert "(403)" in message(push(hub, clone, "user/digits"))
    assert "is a repo; write user/name" in message(push(hub, clone, "hf://datasets/user/digits"))
    assert "no repo of the Hub; leave out --private" in message(push(hub, clone, "memory://x", "--private"))


@pytest.mark.long
def test_push_to_hub__a_change_of_main_is_reported_and_the_next_push_succeeds(clone: Path, hub: Hub) -> None:
    push(hub, clone, "user/digits")
    make = hub.repos["user/digits"]
    tree = {path: blob for path, blob in make.commits[make.refs["main"]].tree.items() if "tar" not in path}
    make.commit("main", tree, "shards lost")
    moved: list[str] = []

    def choose(method: str, path: str) -> Fault | None:
        if path.endswith("/merge") and not moved:
            moved.append(make.commit("main", {**tree, "data/000/test-000000.tar": tree["README.md"]}, "another's"))
        return None

    hub.traffic.choose = choose
    assert "was changed by someone else meanwhile" in message(push(hub, clone, "user/digits"))
    assert push(hub, clone, "user/digits").returncode == 0 and in_repo(hub) == contents(clone)


BUCKET = """
import sys
from pathlib import Path
from builders.format.shard_cache import ShardCache
from builders.format.open_clone import open_clone
from builders.verification.verify_clone import verify_clone

url, clone, folder = sys.argv[1:]
samples = lambda opened: [(sample.key, sample.label, sample.image) for sample in opened]
cached = open_clone(url, ShardCache(Path(folder) / "cache", 10**8))
print(list(verify_clone(url)), samples(open_clone(url)) == samples(cached) == samples(open_clone(clone)))
"""


@pytest.mark.long
def test_push_to_hub__a_bucket_as_target_of_make_and_of_push(
    clone: Path, scans: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.buckets["user/clones"] = {}
    environment = hub_environment(hub, tmp_path / "home", xet=True)
    make = ["make", "real_images/test", "hf://buckets/user/clones/made", "--source", str(scans / "test")]
    options = ["--images-per-class", "8", "--shard-size", "20", "--batch-size", "8"]
    commands = [[*make, *options], ["push", str(clone), "hf://buckets/user/clones/pushed"]]
    for command in commands:
        ended = subprocess.run(
            [sys.executable, "-m", "builders", *command], env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
    for name in ("made", "pushed"):
        url = f"hf://buckets/user/clones/{name}"
        arguments = [sys.executable, "-c", BUCKET, url, str(clone), str(tmp_path / name)]
        read = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        assert read.stdout == "[] True\n", read.stderr
    assert {path.partition("/")[2] for path in hub.buckets["user/clones"]} == set(contents(clone))


@pytest.mark.long
def test_push_to_hub__folders_that_are_links_are_pushed(clone: Path, hub: Hub) -> None:
    for folder in ("data", "metadata"):
        (clone / folder).rename(clone.parent / f"other-{folder}")
        (clone / folder).symlink_to(clone.parent / f"other-{folder}")
    assert push(hub, clone, "user/digits").returncode == 0
    shards = {path.name for folder in ("data", "metadata") for path in (clone / folder).resolve().rglob("*.*")}
    assert shards <= {path.rpartition("/")[2] for path in in_repo(hub)}


@pytest.mark.long
@pytest.mark.parametrize("xet", [False, True])
def test_push_to_hub__answers_that_are_lost_are_looked_up(
    real_plan: Plan, clone: Path, hub: Hub, tmp_path: Path, xet: bool
) -> None:
    """The answers to the commits that delete shards of a larger clone, and to the one on another branch."""
    make_clone(Plan(real_plan.recipe, 1), str(tmp_path / "small"))
    assert push(hub, clone, "user/digits", "--revision", "exp", xet=xet).returncode == 0
    assert push(hub, clone, "user/digits", xet=xet).returncode == 0
    lost = iter([Fault(drop_after=0)] * 2)
    hub.traffic.choose = lambda method, path: next(lost, None) if "/commit/" in path and method == "POST" else None
    assert push(hub, tmp_path / "small", "user/digits", xet=xet).returncode == 0
    assert in_repo(hub) == contents(tmp_path / "small")
    lost = iter([Fault(), Fault(), Fault(drop_after=0)])
    ended = push(hub, tmp_path / "small", "user/digits", "--revision", "exp", xet=xet)
    assert ended.returncode == 0, ended.stderr
    assert in_repo(hub, revision="exp") == contents(tmp_path / "small")
    assert {pull.status for pull in hub.repos["user/digits"].pulls} <= {"merged", "closed"}
