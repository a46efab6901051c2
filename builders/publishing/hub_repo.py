"""One dataset repo of the Hugging Face Hub: retries network failures, raises readable errors if the Hub refuses."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile

from builders.errors import UserError
from builders.storage.base import open_storage
from builders.storage.retry import http_status, is_of_the_network, is_offline, is_transient, retry

Result = TypeVar("Result")

MAIN = "main"
NUM_ATTEMPTS = 5
UNTYPED_ERRORS = (RuntimeError, json.JSONDecodeError)
"""hf_xet raises plain RuntimeErrors, and the client parses some answers without checking their status."""
REFUSALS = {
    401: "the Hub does not know you (401); run 'hf auth login', or set HF_TOKEN to a token that may write",
    403: "you may not write to '{repo}' (403); choose a name of your own, or a token that may write there",
    404: "the Hub has no '{repo}' that you may see (404); check the name, and that you are logged in",
    409: "the Hub says that '{repo}' is in use (409: {reason}); run the push again, or choose another name",
    412: "'{repo}' was changed by someone else meanwhile; run the push again, which sends nothing twice",
}
REFUSED = "the Hub refuses this for '{repo}': {reason}"
UNREACHABLE = "the Hub cannot be reached ({reason}); run the push again, which continues where it stopped"

Tree = dict[str, RepoFile]
"""The files of a revision, by path."""


class HubRepo:
    """A dataset repo. Every method raises a `UserError` if the Hub refuses the request."""

    def __init__(self, repo_id: str) -> None:
        self.id, self.api = repo_id, HfApi()

    def create(self, private: bool) -> None:
        """Creates the repo if it does not exist.

        Raises:
            UserError: the repo should be private, but it exists and is public.
        """

        def create() -> str:
            created = self.api.create_repo(self.id, repo_type="dataset", private=private or None, exist_ok=True)
            return str(created.repo_id)

        with self._readable_errors():
            self.id = retry(create, num_attempts=NUM_ATTEMPTS)
            info = self._call(self.api.repo_info)
        if private and not info.private:
            raise UserError(
                f"'{self.id}' already exists and is public; make it private on its page, or leave out --private"
            )

    def tree(self, revision: str) -> Tree:
        """Returns all files of a revision, by path."""

        def files() -> Tree:
            entries = self.api.list_repo_tree(self.id, repo_type="dataset", revision=revision, recursive=True)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        with self._readable_errors():
            return retry(files, num_attempts=NUM_ATTEMPTS)

    def read(self, path: str, revision: str) -> bytes:
        """Returns the content of one file."""
        return open_storage(f"hf://datasets/{self.id}@{revision}").read(path)

    def commit_of(self, revision: str) -> str:
        """Returns the commit at the head of a revision."""
        with self._readable_errors():
            return str(self._call(self.api.repo_info, revision=revision).sha)

    def make_branch(self, name: str) -> None:
        """Creates a branch at the head of main if it does not exist.

        Raises:
            UserError: the name belongs to a tag, or the Hub reserves it.
        """
        with self._readable_errors():
            references = self._call(self.api.list_repo_refs)
            if name.startswith("refs/") or name in {tag.name for tag in references.tags}:
                raise UserError(f"'{name}' is not a branch of '{self.id}'; give --revision the name of a branch")
            if name not in {branch.name for branch in references.branches}:
                self._call(self.api.create_branch, branch=name, revision=MAIN, exist_ok=True)

    def upload(self, folder: Path, path_in_repo: str, revision: str, message: str, patterns: Sequence[str]) -> None:
        """Uploads the files of a folder that match patterns. What an interrupted upload has sent is not sent again."""
        with self._readable_errors():
            self._call(
                self.api.upload_folder,
                folder_path=folder,
                path_in_repo=path_in_repo or None,
                revision=revision,
                commit_message=message,
                allow_patterns=[*patterns],
            )

    def commit(
        self,
        revision: str,
        operations: Sequence[Any],
        message: str,
        is_done: Callable[[Tree], bool],
        parent: str | None = None,
    ) -> None:
        """Makes one commit.

        Args:
            revision: Branch or pull request.
            operations: Additions, copies and deletions.
            message: Title of the commit.
            is_done: Whether a tree holds what the commit brings. The answer to a commit that was made may be lost.
            parent: The commit that the branch must be at.
        """
        try:
            with self._readable_errors():
                self._call(
                    self.api.create_commit,
                    operations=operations,
                    commit_message=message,
                    revision=revision,
                    parent_commit=parent,
                )
        except UserError:
            if not is_done(self.tree(revision)):
                raise

    def find_pull_request(self, title: str) -> int | None:
        """Returns the number of the user's own open pull request with this title; None if there is none."""

        def found() -> list[int]:
            author = self.api.whoami()["name"]
            pulls = self.api.get_repo_discussions(
                self.id, repo_type="dataset", author=author, discussion_type="pull_request"
            )
            return [p.num for p in pulls if p.title == title and p.author == author and p.status in ("open", "draft")]

        with self._readable_errors():
            return next(iter(retry(found, num_attempts=NUM_ATTEMPTS)), None)

    def open_pull_request(self, title: str) -> int:
        """Opens a pull request, or finds the one that an earlier attempt opened; returns its number."""

        def find_or_open() -> int:
            found = self.find_pull_request(title)
            return found or self.api.create_pull_request(self.id, title, repo_type="dataset").num

        with self._readable_errors():
            return retry(find_or_open, num_attempts=NUM_ATTEMPTS)

    def merge(self, number: int) -> None:
        """Merges a pull request; if main has changed the same files, closes it, and the next push opens a new one."""

        def merge() -> None:
            if self.api.get_discussion_details(self.id, number, repo_type="dataset").status == "merged":
                return  # an earlier attempt has merged it, but its answer was lost
            self.api.change_discussion_status(self.id, number, new_status="open", repo_type="dataset")
            self.api.merge_pull_request(self.id, number, repo_type="dataset")

        with self._readable_errors():
            try:
                retry(merge, num_attempts=NUM_ATTEMPTS)
            except HfHubHTTPError as error:
                if http_status(error) != 409:
                    raise
                self.close(number)
                raise UserError(REFUSALS[412].format(repo=self.id)) from None

    def close(self, number: int) -> None:
        """Closes a pull request."""
        with self._readable_errors():
            self._call(self.api.change_discussion_status, discussion_num=number, new_status="closed")

    def tag(self, name: str, revision: str) -> None:
        """Tags the head of a branch; keeps an existing tag if it names the same files.

        Raises:
            UserError: the tag exists and names other files.
        """
        with self._readable_errors():
            self._call(self.api.create_tag, tag=name, revision=revision, exist_ok=True)
        if self.commit_of(name) != self.commit_of(revision) and _blobs(self.tree(name)) != _blobs(self.tree(revision)):
            raise UserError(
                f"all files are pushed, but the tag '{name}' of '{self.id}' already exists on another commit; "
                "delete it there and run the push again to move it"
            )

    def _call(self, call: Callable[..., Result], **options: Any) -> Result:
        def typed() -> Result:
            try:
                return call(repo_id=self.id, repo_type="dataset", **options)
            except UNTYPED_ERRORS as error:
                raise ConnectionError(str(error)) from error

        return retry(typed, num_attempts=NUM_ATTEMPTS)

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except HFValidationError:
            raise UserError(f"'{self.id}' is not the name of a repo; write user/name") from None
        except Exception as error:
            if is_offline(error):
                raise UserError("HF_HUB_OFFLINE is set; unset it to push") from None
            if not (isinstance(error, OSError) or is_of_the_network(error)):
                raise
            status = http_status(error)
            is_refused = status is not None and 400 <= status < 500 and not is_transient(error)
            sentence = REFUSALS.get(status or 0) or (REFUSED if is_refused else UNREACHABLE)
            raise UserError(sentence.format(repo=self.id, reason=_reason(error))) from None


def _blobs(tree: Tree) -> dict[str, str]:
    return {path: file.blob_id for path, file in tree.items()}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
