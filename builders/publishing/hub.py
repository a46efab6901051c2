"""Pushing a clone to a data set repo of the Hugging Face Hub.

Files go into a pull request, some at a time, each commit a step that is not taken again; once the request holds the clone
whole, it is merged. So `main` has the old clone or the new one. Every step looks at what is there first: a push that was
killed goes on when it is run again.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, logging

from builders.format.errors import UserError
from builders.format.manifest import CARD, MANIFEST, FileEntry, parse_manifest
from builders.format.retrying import http_status, is_of_the_network, is_offline, is_transient, retrying
from builders.format.storage import Storage, open_storage
from builders.publishing.collection import card_yaml, render_collection
from builders.publishing.push import INDEX_FILES, Progress, checked_clone, clone_files

Result = TypeVar("Result")
CommitOperations = list[Any]
"""Additions, copies and deletions."""

MAIN = "main"
FILES_PER_COMMIT = 50
BYTES_PER_COMMIT = 1 << 30
NUM_ATTEMPTS = 5
CONFIG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
UNKNOWING = {".gitattributes", "README.md", "LICENSE"}
"""Files that a repo may have before its first clone."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a repo a clone goes."""

    revision: str = MAIN
    """Branch."""
    config: str = ""
    """Folder of the clone, and its name for load_dataset; "" is the root of a repo with one clone."""
    private: bool = False
    """Whether a new repo is a private one."""

    def __post_init__(self) -> None:
        if self.config and not CONFIG_NAME.fullmatch(self.config):
            raise UserError(f"'{self.config}' is no name for a config; use letters, digits, '_', '.' and '-'")


@dataclass(frozen=True)
class Pushed:
    url: str
    commit: str
    load_line: str
    tag: str = ""


@dataclass(frozen=True)
class _File:
    """A file as it should be in the repo."""

    path: str
    num_bytes: int
    sha256: str
    source: Path | bytes

    def is_in(self, there: RepoFile | None) -> bool:
        """Whether the repo has these bytes under this path."""
        if there is None or there.size != self.num_bytes:
            return False
        if there.lfs:
            return bool(there.lfs.sha256 == self.sha256)
        content = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return bool(there.blob_id == hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest())

    def addition(self) -> CommitOperationAdd:
        source = self.source if isinstance(self.source, bytes) else str(self.source)
        return CommitOperationAdd(self.path, source)


def push_to_hub(
    root: str,
    repo_id: str,
    place: Place | None = None,
    *,
    tag: bool = False,
    replace: bool = False,
    on_progress: Progress = lambda num_files, num_bytes: None,
) -> Pushed:
    """Makes a repo's branch hold a clone: at its root, or in a folder as one config of several.

    `tag` tags the clone's version, as its card tells it; `replace` lets it take the place of a clone of another recipe.

    Raises:
        UserError: the clone is not whole, the repo holds something else, or the Hub refuses.
    """
    place = place or Place()
    revision, config = place.revision, place.config
    storage, manifest = checked_clone(root)
    disable_progress_bars()
    logging.set_verbosity_error()  # what is tried again is no news
    repo = _Repo(repo_id)
    repo.create(place.private)
    if revision != MAIN:
        repo.make_branch(revision)
    base = _Branch(repo, revision)
    prefix = f"{config}/" if config else ""
    _check_place(base, prefix, manifest.recipe_hash, replace)
    files = [_in_repo(storage, file, prefix) for file in clone_files(storage, manifest)]
    wanted = files + ([_collection_card(base, storage, config)] if config else [])
    if _differences(wanted, base.tree, prefix) != ([], []):
        _push_through_pull_request(base, wanted, prefix, on_progress)
    else:
        on_progress(len(wanted), sum(file.num_bytes for file in wanted))
    if _differences(wanted, repo.tree(revision), prefix) != ([], []):
        raise UserError(f"'{repo.id}' was changed by another while this was pushed; run the push again")
    version = f"v{card_yaml(storage.read(CARD).decode(), root)['dataset_info']['version']}"
    if tag:
        repo.tag(version, revision)
    named = f", {config!r}" if config else ""
    named += f", revision={revision!r}" if revision != MAIN else ""
    return Pushed(
        url=f"{repo.api.endpoint}/datasets/{repo.id}" + (f"/tree/{revision}" if revision != MAIN else ""),
        commit=repo.commit_of(revision),
        load_line=f"datasets.load_dataset({repo.id!r}{named}, split={manifest.split!r})",
        tag=version if tag else "",
    )


def _push_through_pull_request(base: "_Branch", wanted: list[_File], prefix: str, on_progress: Progress) -> None:
    repo, main = base.repo, base.repo.tree(MAIN)
    title = f"fakeit push to {base.name}{f' of {prefix[:-1]}' if prefix else ''}"
    number = repo.find_pull_request(title) or repo.open_pull_request(title)
    if _changes_of_others(repo.tree(f"refs/pr/{number}"), main, wanted, prefix):
        # It is from an older main, or others have a hand in it.
        repo.close(number)
        number = repo.open_pull_request(title)
    reference = f"refs/pr/{number}"
    told: set[str] = set()
    num_lacking, num_in_vain = -1, 0
    while True:
        tree = repo.tree(reference)
        missing, foreign = _differences(wanted, tree, prefix)
        lacking = {file.path for file in missing}
        news = [file for file in wanted if file.path not in lacking and file.path not in told]
        told |= {file.path for file in news}
        on_progress(len(news), sum(file.num_bytes for file in news))
        if not missing and not foreign:
            break
        # A commit at a time, and a fresh look after each: whether one landed whose answer was lost is seen there.
        num_in_vain = num_in_vain + 1 if len(missing) + len(foreign) == num_lacking else 0
        if num_in_vain > NUM_ATTEMPTS:
            raise UserError(
                f"'{[*lacking, *foreign][0]}' does not come to be in '{repo.id}' as it was when the push began; "
                "leave the clone as it is meanwhile, and run the push again"
            )
        num_lacking = len(missing) + len(foreign)
        group = _next_group(missing)
        deleted = foreign if len(group) == len(missing) else []
        additions = [file.addition() for file in group]
        repo.commit(
            reference, [*additions, *map(CommitOperationDelete, deleted)], title, may_fail=num_in_vain < NUM_ATTEMPTS
        )
    if strange := _changes_of_others(tree, main, wanted, prefix):
        raise UserError(
            f"another changed '{strange[0]}' in the pull request {number} of '{repo.id}'; run the push again"
        )
    if base.name == MAIN:
        repo.merge(number)
    else:
        _take_over(base, reference, tree, wanted, prefix, title)
        repo.close(number)


def _changes_of_others(
    tree: dict[str, RepoFile], main: dict[str, RepoFile], wanted: list[_File], prefix: str
) -> list[str]:
    """Paths outside the clone at which a pull request differs from main."""
    ours = {file.path for file in wanted}
    places = (f"{prefix}data/", f"{prefix}metadata/")
    paths = [path for path in sorted(tree.keys() | main.keys()) if path not in ours and not path.startswith(places)]
    return [p for p in paths if p not in tree or p not in main or tree[p].blob_id != main[p].blob_id]


def _take_over(
    base: "_Branch", reference: str, tree: dict[str, RepoFile], wanted: list[_File], prefix: str, title: str
) -> None:
    """One commit on the branch that makes its clone the one in the pull request; nothing is sent again."""
    missing, foreign = _differences(wanted, base.tree, prefix)
    copies = [
        CommitOperationCopy(src_path_in_repo=file.path, path_in_repo=file.path, src_revision=reference)
        if tree[file.path].lfs
        else file.addition()
        for file in missing
    ]
    deletions = [CommitOperationDelete(path) for path in foreign]
    for attempt in range(NUM_ATTEMPTS):
        may_fail = attempt < NUM_ATTEMPTS - 1
        base.repo.commit(base.name, [*copies, *deletions], title, may_fail=may_fail, parent=base.commit)
        if _differences(wanted, base.repo.tree(base.name), prefix) == ([], []):
            return


def _next_group(missing: list[_File]) -> list[_File]:
    """As many of the files as go into a commit; index files, which come last, only with all that is left."""
    group: list[_File] = []
    shards = [file for file in missing if Path(file.path).name not in INDEX_FILES]
    for file in shards:
        is_full = len(group) >= FILES_PER_COMMIT or sum(f.num_bytes for f in group) + file.num_bytes > BYTES_PER_COMMIT
        if group and is_full:
            return group
        group.append(file)
    return missing if len(missing) - len(shards) + len(group) <= FILES_PER_COMMIT else group or missing


def _differences(wanted: list[_File], tree: dict[str, RepoFile], prefix: str) -> tuple[list[_File], list[str]]:
    """The files that the tree lacks or has otherwise, and the shards and metadata that belong to no file."""
    paths = {file.path for file in wanted}
    foreign = [p for p in tree if p.startswith((f"{prefix}data/", f"{prefix}metadata/")) and p not in paths]
    return [file for file in wanted if not file.is_in(tree.get(file.path))], foreign


def _in_repo(storage: Storage, file: FileEntry, prefix: str) -> _File:
    return _File(prefix + file.name, file.num_bytes, file.sha256, Path(storage.path(file.name)))


def _check_place(base: "_Branch", prefix: str, recipe_hash: str, replace: bool) -> None:
    """Whether a clone may be put there.

    Raises:
        UserError: the branch holds something else.
    """
    repo, tree = base.repo.id, base.tree
    configs = _configs(tree)
    if not prefix and configs:
        raise UserError(f"'{repo}' holds clones as configs ({', '.join(configs)}); give --config a name for this one")
    if prefix and MANIFEST in tree:
        raise UserError(f"'{repo}' holds one clone at its root, without --config; push this one to another repo")
    if f"{prefix}{MANIFEST}" in tree:
        old = parse_manifest(base.read(f"{prefix}{MANIFEST}"), f"{repo}/{prefix}{MANIFEST}")
        if old.recipe_hash != recipe_hash and not replace:
            raise UserError(
                f"'{repo}' holds a clone of another recipe ({old.recipe['name']}); add --replace to put this one in its "
                "place, or --config to put it beside it, or choose another repo"
            )
        return
    ours = tuple(f"{config}/" for config in configs)
    foreign = [path for path in tree if path not in UNKNOWING and not path.startswith(ours)]
    if CARD in tree and not configs and not _is_stub(base.read(CARD).decode(errors="replace")):
        foreign.append(CARD)
    if foreign and not replace:
        raise UserError(
            f"'{repo}' holds files but no clone ('{foreign[0]}'); choose a repo of its own, or add --replace"
        )


def _configs(tree: dict[str, RepoFile]) -> list[str]:
    """The clones that lie in folders of their own."""
    return sorted(path.partition("/")[0] for path in tree if path.count("/") == 1 and path.endswith(f"/{MANIFEST}"))


def _is_stub(card: str) -> bool:
    """Whether a README.md holds no more than what the Hub's page for new repos writes."""
    return not card.removeprefix("---\n").rpartition("---\n")[2].strip()


def _collection_card(base: "_Branch", storage: Storage, config: str) -> _File:
    """The repo's own README.md, made of the cards of all its clones."""
    cards = {name: base.read(f"{name}/{CARD}").decode() for name in _configs(base.tree) if name != config}
    card = render_collection(base.repo.id, {**cards, config: storage.read(CARD).decode()}).encode()
    return _File(CARD, len(card), hashlib.sha256(card).hexdigest(), card)


class _Branch:
    """A branch as it was when the push looked at it."""

    def __init__(self, repo: "_Repo", name: str) -> None:
        self.repo, self.name = repo, name
        self.commit = repo.commit_of(name)
        self.tree = repo.tree(self.commit)

    def read(self, path: str) -> bytes:
        return open_storage(f"hf://datasets/{self.repo.id}@{self.commit}").read(path)


class _Repo:
    """A data set repo; what the Hub refuses becomes a sentence, what the network breaks is tried again."""

    def __init__(self, repo_id: str) -> None:
        self.id, self.api = repo_id, HfApi()

    def create(self, private: bool) -> None:
        def create() -> str:
            return str(
                self.api.create_repo(self.id, repo_type="dataset", private=private or None, exist_ok=True).repo_id
            )

        with self._told():
            self.id = self._again(create)
            info = self._call(self.api.repo_info)
        if private and not info.private:
            raise UserError(
                f"'{self.id}' is there already and public; make it private on its page, or leave out --private"
            )

    def tree(self, revision: str) -> dict[str, RepoFile]:
        def files() -> dict[str, RepoFile]:
            entries = self.api.list_repo_tree(self.id, repo_type="dataset", revision=revision, recursive=True)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        with self._told():
            return self._again(files)

    def commit_of(self, revision: str) -> str:
        with self._told():
            return str(self._call(self.api.repo_info, revision=revision).sha)

    def make_branch(self, name: str) -> None:
        """Makes a branch be there, beginning where main is.

        Raises:
            UserError: the name is a tag's, or the Hub's own.
        """
        with self._told():
            references = self._call(self.api.list_repo_refs)
            if name.startswith("refs/") or name in {tag.name for tag in references.tags}:
                raise UserError(f"'{name}' is no branch of '{self.id}'; give --revision the name of a branch")
            if name not in {branch.name for branch in references.branches}:
                self._call(self.api.create_branch, branch=name, revision=MAIN, exist_ok=True)

    def commit(
        self,
        reference: str,
        operations: CommitOperations,
        title: str,
        *,
        may_fail: bool,
        parent: str | None = None,
    ) -> None:
        """One commit; with `may_fail`, one that the network broke is passed over once the network is back."""
        with self._told():
            try:
                self.api.create_commit(
                    self.id,
                    operations,
                    repo_type="dataset",
                    commit_message=title,
                    revision=reference,
                    parent_commit=parent,
                )
            except Exception as error:
                if not may_fail or not (is_transient(error) or isinstance(error, _NAMELESS)):
                    raise
                self._call(self.api.repo_info, revision=reference)

    def find_pull_request(self, title: str) -> int | None:
        """One of our own that is still open."""

        def found() -> list[int]:
            author = self.api.whoami()["name"]
            pulls = self.api.get_repo_discussions(
                self.id, repo_type="dataset", author=author, discussion_type="pull_request"
            )
            return [p.num for p in pulls if p.title == title and p.author == author and p.status in ("open", "draft")]

        with self._told():
            return next(iter(self._again(found)), None)

    def open_pull_request(self, title: str) -> int:
        def find_or_open() -> int:  # an answer that was lost is found
            return (
                self.find_pull_request(title) or self.api.create_pull_request(self.id, title, repo_type="dataset").num
            )

        with self._told():
            return self._again(find_or_open)

    def merge(self, number: int) -> None:
        """Merges; a request that main has outrun is closed, so that the next push begins a new one."""

        def merge() -> None:
            if self.api.get_discussion_details(self.id, number, repo_type="dataset").status == "merged":
                return  # and the answer was lost
            self.api.change_discussion_status(self.id, number, new_status="open", repo_type="dataset")
            self.api.merge_pull_request(self.id, number, repo_type="dataset")

        with self._told():
            try:
                self._again(merge)
            except HfHubHTTPError as error:
                if http_status(error) != 409:
                    raise
                self.close(number)
                raise UserError(
                    f"'{self.id}' was changed by another meanwhile; run the push again, which sends nothing twice"
                ) from None

    def close(self, number: int) -> None:
        with self._told():
            self._call(self.api.change_discussion_status, discussion_num=number, new_status="closed")

    def tag(self, name: str, revision: str) -> None:
        """Tags a branch's head; a tag of the name stays where it is, for it names the same bytes.

        Raises:
            UserError: it names other ones.
        """
        with self._told():
            self._call(self.api.create_tag, tag=name, revision=revision, exist_ok=True)
        if self.commit_of(name) != self.commit_of(revision) and _blobs(self.tree(name)) != _blobs(self.tree(revision)):
            raise UserError(
                f"all is pushed, but the tag '{name}' of '{self.id}' is there already, on another commit; "
                "remove it there and run the push again to move it"
            )

    def _call(self, call: Callable[..., Result], **options: Any) -> Result:
        return retrying(call, self.id, repo_type="dataset", num_attempts=NUM_ATTEMPTS, **options)

    def _again(self, call: Callable[[], Result]) -> Result:
        return retrying(call, num_attempts=NUM_ATTEMPTS)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except HFValidationError:
            raise UserError(f"'{self.id}' is no name of a repo; write user/name") from None
        except Exception as error:
            if is_offline(error):
                raise UserError("HF_HUB_OFFLINE is set; unset it to push") from None
            if not (isinstance(error, (OSError, *_NAMELESS)) or is_of_the_network(error)):
                raise
            status = http_status(error)
            known = _REFUSALS.get(status or 0)
            sentence = known or (_REFUSED if status and 400 <= status < 500 and not is_transient(error) else _BROKEN)
            raise UserError(sentence.format(repo=self.id, reason=_reason(error))) from None


_NAMELESS = (RuntimeError, json.JSONDecodeError)
"""hf_xet has no kinds of errors of its own, and the client reads some answers without a look at their status."""

_REFUSALS = {
    401: "the Hub does not know you (401); run 'hf auth login', or set HF_TOKEN to a token that may write",
    403: "you may not write to '{repo}' (403); choose a name of your own, or a token that may write there",
    404: "the Hub has no '{repo}' that you may see (404); check the name, and that you are logged in",
    409: "the Hub says that '{repo}' is in use (409: {reason}); run the push again, or choose another name",
    412: "'{repo}' was changed by another meanwhile; run the push again, which sends nothing twice",
}
_REFUSED = "the Hub refuses this for '{repo}': {reason}"
_BROKEN = "the Hub cannot be reached ({reason}); run the push again, which goes on where it stopped"


def _blobs(tree: dict[str, RepoFile]) -> dict[str, str]:
    return {path: file.blob_id for path, file in tree.items()}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
