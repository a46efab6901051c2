"""Makes one shard in the current process. The workers of every runner call `attempt`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from builders.coordination.failures import classify_error
from builders.coordination.job import Task
from builders.coordination.patience import LONGEST_WAIT, retry_unreachable
from builders.coordination.policy import Problem
from builders.engines.base import Generate, engine
from builders.errors import UserError
from builders.generation.batch_size import OnBatch, shared_batch_size
from builders.generation.generate_shard import generate_shard_tar, sweep_scratch, upload_finished_tar
from builders.prompts.prompt_table import fetch_prompts
from builders.recipes.execution import Execution
from builders.recipes.recipe import Recipe
from builders.storage.base import Storage, open_storage


def attempt(task: Task, shard: int, execution: Execution, tell: OnBatch) -> Problem | None:
    """Makes one shard in this process; returns None, or the problem if that failed.

    For a remote store, the finished tar is uploaded. If an earlier attempt left the tar in the scratch folder, only the
    upload is repeated. `tell` is called after every batch.
    """
    plan = task.plan
    try:
        storage = open_storage(task.out)
        sweep_scratch(storage, task.scratch)
        if not storage.is_local and _upload(task, shard, storage, tell):
            return None
        if not fetch_prompts(plan.recipe.prompts, storage):
            raise UserError(f"the prompts of this clone are missing in '{task.out}'; run 'fakeit-build make' again")
        if execution.is_auto:
            tuned = partial(shared_batch_size, plan, storage, execution, tell, unload_engine)
            execution = retry_unreachable(tuned, task.patience, partial(tell, 0, 0, 0, 0))
        generate = _load_engine(plan.recipe, execution)
        for counts in generate_shard_tar(plan, shard, generate, execution, storage, task.scratch):
            tell(*counts)
        if not storage.is_local and not _upload(task, shard, storage, tell):
            raise FileNotFoundError(f"the finished tar of shard {shard} is gone from the scratch folder")
    except Exception as error:
        return replace(classify_error(error), batch_size=execution.batch_size)
    return None


def _upload(task: Task, shard: int, storage: Storage, tell: OnBatch) -> bool:
    """Uploads a finished tar, with retries while the store does not answer. Returns False if there is no such tar."""
    with _keep_alive(tell):
        return retry_unreachable(partial(upload_finished_tar, task.plan, shard, storage, task.scratch), task.patience)


@contextmanager
def _keep_alive(tell: OnBatch) -> Iterator[None]:
    """Reports signs of life while this worker waits for a store, which may take longer than many batches."""
    is_over = threading.Event()

    def report() -> None:
        while not is_over.wait(LONGEST_WAIT):
            tell(0, 0, 0, 0)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


_loaded: dict[tuple[Recipe, str, Execution], Generate] = {}


def _load_engine(recipe: Recipe, execution: Execution) -> Generate:
    """Returns the loaded engine and keeps it for the next shard. Another one is unloaded first to free its memory."""
    key = (recipe, recipe.model_dir, execution)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = engine(recipe.engine).load(recipe, execution)
    return _loaded[key]


def unload_engine() -> None:
    """Frees the memory of the engine that made the last shard."""
    _loaded.clear()
