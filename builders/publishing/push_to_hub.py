"""Pushes a clone to a dataset repo of the Hugging Face Hub.

`upload_folder` sends the files into a pull request, which is merged once it holds the whole clone. So readers of `main`
find the old clone or the new one, never a mixture, and a push that was killed continues when it is run again.
"""

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from builders.card.assets import card_asset_names
from builders.card.collection import card_yaml, render_collection
from builders.errors import UserError
from builders.format.manifest import parse_manifest
from builders.format.names import CARD, MANIFEST, PROMPTS
from builders.publishing.hub_repo import MAIN, HubRepo, Tree
from builders.publishing.push_to_url import INDEX_FILES, checked_clone, clone_files

CONFIG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SHARD_PATTERNS, SHARD_FOLDERS = ("data/*.tar", "metadata/*.parquet"), ("data/", "metadata/")
REPLACED = (*SHARD_FOLDERS, PROMPTS)
"""What the paths of files begin with that go when another clone comes."""
INITIAL_FILES = {".gitattributes", "README.md", "LICENSE"}
"""Files that a repo may have before its first clone."""


@dataclass(frozen=True, kw_only=True)
class HubTarget:
    """Where a clone goes in a repo: its branch and its config."""

    revision: str = MAIN
    """Name of the branch."""
    config: str = ""
    """Name of the clone's folder and of its config in load_dataset; "" for the root of a repo that holds one clone."""
    private: bool = False
    """Whether a new repo is private."""

    def __post_init__(self) -> None:
        if self.config and not CONFIG_NAME.fullmatch(self.config):
            raise UserError(f"'{self.config}' is not a name for a config; use letters, digits, '_', '.' and '-'")

    @property
    def prefix(self) -> str:
        """The beginning of the paths of the clone's files."""
        return f"{self.config}/" if self.config else ""


@dataclass(frozen=True)
class Pushed:
    url: str
    commit: str
    load_line: str
    """Line of Python that loads the clone."""
    tag: str = ""


@dataclass(frozen=True)
class _File:
    """A file as it should be in the repo."""

    path: str
    num_bytes: int
    sha256: str
    source: Path | bytes

    def is_same(self, remote: RepoFile | None) -> bool:
        if remote is None or remote.size != self.num_bytes:
            return False
        if remote.lfs:
            return bool(remote.lfs.sha256 == self.sha256)
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return bool(remote.blob_id == git_hash(content))

    def addition(self) -> CommitOperationAdd:
        return CommitOperationAdd(self.path, self.source if isinstance(self.source, bytes) else str(self.source))


@dataclass(frozen=True)
class _Push:
    """The state that one push has to reach in a repo."""

    repo: HubRepo
    target: HubTarget
    folder: Path
    files: list[_File]
    patterns: list[str]
    """Patterns of the local files that `upload_folder` sends."""
    card: str
    """The clone's own card."""
    extra: list[_File] = field(default_factory=list)
    """Files outside the clone's folder: the card of a repo with several clones."""

    @property
    def title(self) -> str:
        """Title of the pull request, by which a later push finds it."""
        return f"fakeit push to {self.target.revision}" + (f" of {self.target.config}" if self.target.config else "")

    def with_card(self, revision: str) -> "_Push":
        """Adds the README.md of a repo with several clones, made from the cards that a revision holds."""
        config = self.target.config
        if not config:
            return self
        others = [name for name in _configs(self.repo.tree(revision)) if name != config]
        cards = {name: self.repo.read(f"{name}/{CARD}", revision.replace("/", "%2F")).decode() for name in others}
        card = render_collection(self.repo.id, {**cards, config: self.card}).encode()
        return dataclasses.replace(self, extra=[_File(CARD, len(card), hashlib.sha256(card).hexdigest(), card)])

    def has_card(self, tree: Tree) -> bool:
        return all(file.is_same(tree.get(file.path)) for file in self.extra)

    def missing(self, tree: Tree) -> list[_File]:
        """Returns the files that a revision lacks or holds with other content."""
        return [file for file in self.files + self.extra if not file.is_same(tree.get(file.path))]

    def stale(self, tree: Tree) -> list[str]:
        """Returns the paths of shards, metadata and prompts in a revision that are not part of the clone."""
        paths = {file.path for file in self.files}
        ours = tuple(self.target.prefix + start for start in REPLACED)
        return [path for path in tree if path.startswith(ours) and path not in paths]

    def is_done(self, tree: Tree) -> bool:
        return not self.missing(tree) and not self.stale(tree)

    def foreign_changes(self, tree: Tree, main: Tree) -> list[str]:
        """Returns the paths outside the clone at which a pull request differs from main."""
        ours = {file.path for file in self.files + self.extra}
        starts = tuple(self.target.prefix + start for start in REPLACED)
        paths = [path for path in sorted(tree.keys() | main.keys()) if path not in ours and not path.startswith(starts)]
        return [p for p in paths if p not in tree or p not in main or tree[p].blob_id != main[p].blob_id]


def push_to_hub(
    root: str, repo_id: str, target: HubTarget = HubTarget(), *, tag: bool = False, replace: bool = False
) -> Pushed:
    """Pushes a clone to a branch of a repo, at its root or as one of several configs.

    Args:
        root: Directory of the clone.
        repo_id: The repo, as user/name; created if it does not exist.
        target: Branch and config.
        tag: Whether to tag the commit with the clone's version, which is in its card.
        replace: Whether the clone may replace a clone of another recipe.

    Raises:
        UserError: the clone has faults, the repo holds something else, or the Hub refuses.
    """
    storage, manifest = checked_clone(root)
    repo = HubRepo(repo_id)
    repo.create(target.private)
    if target.revision != MAIN:
        repo.make_branch(target.revision)
    commit = repo.commit_of(target.revision)
    tree = repo.tree(commit)
    _check_target(repo, commit, tree, target, manifest.recipe_hash, replace)
    push = _Push(
        repo=repo,
        target=target,
        folder=Path(storage.path("")),
        files=[
            _File(target.prefix + file.name, file.num_bytes, file.sha256, Path(storage.path(file.name)))
            for file in clone_files(storage, manifest)
        ],
        patterns=[*SHARD_PATTERNS, PROMPTS, *card_asset_names(storage), *INDEX_FILES],
        card=storage.read(CARD).decode(),
    ).with_card(commit)
    if not push.is_done(tree):
        push = _push_through_pull_request(push, commit, tree)
        if not push.is_done(repo.tree(target.revision)):
            raise UserError(f"'{repo.id}' was changed by someone else during the push; run the push again")
    elif target.revision != MAIN and (number := repo.find_pull_request(push.title)):
        repo.close(number)  # the answer to the last commit of an earlier push was lost
    version = f"v{card_yaml(push.card, root)['dataset_info']['version']}"
    if tag:
        repo.tag(version, target.revision)
    is_main = target.revision == MAIN
    named = (f", {target.config!r}" if target.config else "") + ("" if is_main else f", revision={target.revision!r}")
    return Pushed(
        url=f"{repo.api.endpoint}/datasets/{repo.id}" + ("" if is_main else f"/tree/{target.revision}"),
        commit=repo.commit_of(target.revision),
        load_line=f"datasets.load_dataset({repo.id!r}{named}, split={manifest.split!r})",
        tag=version if tag else "",
    )


def _push_through_pull_request(push: _Push, base_commit: str, base_tree: Tree) -> _Push:
    """Brings the clone into the branch; returns the push with the repo's card as it then is."""
    repo, target, main = push.repo, push.target, push.repo.tree(MAIN)
    number = repo.find_pull_request(push.title) or repo.open_pull_request(push.title)
    if push.foreign_changes(repo.tree(f"refs/pr/{number}"), main):
        # It was opened from an older main, or someone else has pushed to it.
        repo.close(number)
        number = repo.open_pull_request(push.title)
    reference = f"refs/pr/{number}"
    if target.revision == MAIN:
        push = push.with_card(reference)
    _upload(push, reference)
    tree = repo.tree(reference)
    if operations := [*(file.addition() for file in push.extra), *map(CommitOperationDelete, push.stale(tree))]:
        repo.commit(reference, operations, push.title, lambda tree: not push.stale(tree) and push.has_card(tree))
        tree = repo.tree(reference)
    if missing := push.missing(tree):
        raise UserError(
            f"'{missing[0].path}' has other content in '{repo.id}' than when the push began; do not change the clone "
            "during a push, and run the push again"
        )
    if foreign := push.foreign_changes(tree, main) + push.stale(tree):
        raise UserError(
            f"someone else changed '{foreign[0]}' in pull request {number} of '{repo.id}'; run the push again"
        )
    if target.revision == MAIN:
        repo.merge(number)
    else:
        _copy_to_branch(push, reference, tree, base_commit, base_tree)
        repo.close(number)
    return push


def _upload(push: _Push, reference: str) -> None:
    """Uploads the clone's files; folders that are links are uploaded by themselves, for `upload_folder` follows none."""
    push.repo.upload(push.folder, push.target.config, reference, push.title, push.patterns)
    for folder in SHARD_FOLDERS:
        if (push.folder / folder).is_symlink():
            path_in_repo = f"{push.target.prefix}{folder}".rstrip("/")
            push.repo.upload((push.folder / folder).resolve(), path_in_repo, reference, push.title, ["*"])


def _copy_to_branch(push: _Push, reference: str, tree: Tree, base_commit: str, base_tree: Tree) -> None:
    """Makes one commit on the branch that copies the clone from the pull request, which can be merged into main alone."""
    additions = [
        CommitOperationCopy(src_path_in_repo=file.path, path_in_repo=file.path, src_revision=reference)
        if tree[file.path].lfs
        else file.addition()
        for file in push.missing(base_tree)
    ]
    deletions = [CommitOperationDelete(path) for path in push.stale(base_tree)]
    push.repo.commit(push.target.revision, [*additions, *deletions], push.title, push.is_done, parent=base_commit)


def _check_target(repo: HubRepo, commit: str, tree: Tree, target: HubTarget, recipe_hash: str, replace: bool) -> None:
    """Checks that the clone may be pushed to the branch.

    Raises:
        UserError: the branch holds something else.
    """
    configs, prefix = _configs(tree), target.prefix
    if not prefix and configs:
        raise UserError(
            f"'{repo.id}' holds clones as configs ({', '.join(configs)}); give --config a name for this one"
        )
    if prefix and MANIFEST in tree:
        raise UserError(f"'{repo.id}' holds one clone at its root, without --config; push this one to another repo")
    if f"{prefix}{MANIFEST}" in tree:
        old = parse_manifest(repo.read(f"{prefix}{MANIFEST}", commit), f"{repo.id}/{prefix}{MANIFEST}")
        if old.recipe_hash != recipe_hash and not replace:
            raise UserError(
                f"'{repo.id}' holds a clone of another recipe ({old.recipe['name']}); add --replace to replace it, "
                "or --config to put this one beside it, or choose another repo"
            )
        return
    ours = tuple(f"{config}/" for config in configs)
    foreign = [path for path in tree if path not in INITIAL_FILES and not path.startswith(ours)]
    if CARD in tree and not configs and not _is_empty_card(repo.read(CARD, commit).decode(errors="replace")):
        foreign.append(CARD)
    if foreign and not replace:
        raise UserError(f"'{repo.id}' holds files but no clone ('{foreign[0]}'); choose another repo, or add --replace")


def _configs(tree: Tree) -> list[str]:
    """Returns the names of the clones that have a folder of their own."""
    return sorted(path.partition("/")[0] for path in tree if path.count("/") == 1 and path.endswith(f"/{MANIFEST}"))


def _is_empty_card(card: str) -> bool:
    """Whether a README.md holds only YAML, as the Hub writes it for a new repo."""
    return not card.removeprefix("---\n").rpartition("---\n")[2].strip()
