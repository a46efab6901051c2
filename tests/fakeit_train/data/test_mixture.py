"""Several clones, selections of their samples, and the training order over them, on real digits."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders.errors import UnreachableError, UserError
from builders.format.manifest import Manifest
from builders.format.open_clone import Clone, open_clone
from builders.make_clone import make_clone
from builders.planning.plan import Plan
from fakeit_train.config import DataConfig
from fakeit_train.data.mixture import Mixture, open_mixture, whole
from fakeit_train.data.order import Order, WeightedOrder, rank_slice, weighted_order

Open = Callable[..., Mixture]


@pytest.fixture(scope="module")
def roots(finished: tuple[Path, Manifest], real_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Returns the finished clone, and a clone of its last classes with other shards."""
    recipe = real_plan.recipe
    classes = recipe.classes[5:]
    other = str(tmp_path_factory.mktemp("clone") / "other")
    make_clone(Plan(replace(recipe, classes=classes, shard_size=7), 4), other)
    return [str(finished[0]), other]


def keys(mixture: Mixture) -> list[str]:
    return [mixture.key(number) for number in range(len(mixture))]


@pytest.mark.parametrize("turn", [1, -1])
def test_mixture__labels_follow_class_ids(turn: int, roots: list[str]) -> None:
    mixture = open_mixture(roots[::turn], DataConfig())
    assert len(mixture) == sum(len(open_clone(root)) for root in roots)
    seen = set()
    for number in range(len(mixture)):
        sample = mixture.view(number)
        clone, slash, key = sample.key.partition("/")
        seen.add(clone)
        assert slash and mixture.label_names[sample.label] == key.rpartition("_")[0]
        assert mixture.key(number) == sample.key
    assert seen == {"1", "2"} and len(mixture.label_names) == len(set(mixture.label_names))


def test_mixture__views_have_the_order_of_the_request(roots: list[str]) -> None:
    mixture = open_mixture(roots, DataConfig())
    numbers = [len(mixture) - 1, 0, 5, len(mixture) - 2, 5, 1]
    assert mixture.views(numbers) == [mixture.view(number) for number in numbers]


def test_mixture__a_single_clone_keeps_its_keys_and_shards(roots: list[str]) -> None:
    clone = open_clone(roots[0])
    mixture = open_mixture(roots[:1], DataConfig())
    assert keys(mixture) == [clone.key(number) for number in range(len(clone))] == keys(whole(clone))
    assert mixture.order(DataConfig(batch_size=4)) == Order(
        tuple(shard.num_samples for shard in clone.manifest.shards), 4
    )


def test_mixture__a_reopened_mixture_is_the_same(roots: list[str]) -> None:
    mixture = open_mixture(roots, DataConfig(where=("index < 2",)))
    assert keys(mixture.reopened()) == keys(mixture)
    assert mixture.reopened().clones[0] is not mixture.clones[0]


def test_mixture__words_are_found_in_any_order_and_case(roots: list[str]) -> None:
    clone = open_clone(roots[0])
    named = {row["key"] for shard in range(len(clone.manifest.shards)) for row in clone.metadata(shard).to_pylist()
             if "two" in row["class_name"]}  # fmt: skip
    assert set(keys(open_mixture(roots[:1], DataConfig(where=("class_name ~ 2 TWO",))))) == named != set()


@pytest.mark.parametrize("root", [0, 1])
@pytest.mark.parametrize("num_rounds", [1, 2, 3])
def test_mixture__scale_selects_the_prefix_that_make_would_have_generated(
    root: int, num_rounds: int, roots: list[str]
) -> None:
    clone = open_clone(roots[root])
    scale = num_rounds / max(clone.rounds.base_counts)
    found = keys(open_mixture([roots[root]], DataConfig(scale=scale)))
    assert found == [clone.key(number) for number in range(clone.rounds.num_samples_before(num_rounds))]
    assert set(Counter(key.rpartition("_")[0] for key in found).values()) <= {num_rounds - 1, num_rounds}


def test_mixture__conditions_and_lists_of_keys_leave_samples_out(roots: list[str], tmp_path: Path) -> None:
    clone = open_clone(roots[0])
    rows = [row for shard in range(len(clone.manifest.shards)) for row in clone.metadata(shard).to_pylist()]
    out = [rows[3]["key"], rows[0]["key"], rows[-1]["key"]]
    (tmp_path / "list.txt").write_text(f"# looked at by hand\n{out[0]}  # blurred\n\n{out[1]}\n{out[2]}\n")
    config = DataConfig(exclude=str(tmp_path / "list.txt"), where=("nsfw != 1", "index >= 1"))
    found = keys(open_mixture(roots[:1], config))
    assert found == [row["key"] for row in rows if row["index"] >= 1 and row["key"] not in out]
    assert 0 < len(found) < len(rows) - 3


def test_mixture__a_key_with_a_clone_number_is_left_out_of_that_clone_only(roots: list[str], tmp_path: Path) -> None:
    (tmp_path / "both.txt").write_text((key := open_clone(roots[1]).key(0)) + "\n")
    (tmp_path / "one.txt").write_text(f"2/{key}\n")
    every = Counter(name.partition("/")[2] for name in keys(open_mixture(roots, DataConfig())))
    for name, left in (("both", 0), ("one", every[key] - 1)):
        config = DataConfig(exclude=str(tmp_path / f"{name}.txt"))
        found = Counter(name.partition("/")[2] for name in keys(open_mixture(roots, config)))
        assert found[key] == left


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": (1.0,)}, "data.weights has 1 numbers, but there are 2 clones"),
        ({"scale": 9.0}, r"data\.scale 9 needs .* samples, but '.*' has .*; lower data\.scale, or grow the clone"),
        ({"scale": 1e-9}, r"data\.scale 1e-09 leaves no sample of .*; raise it"),
        ({"where": ("index < 0",)}, "no sample of .* is left"),
        ({"exclude": "nowhere.txt"}, "'nowhere.txt' cannot be read"),
    ],
)
def test_mixture__settings_that_do_not_fit_are_reported(
    settings: dict[str, object], words: str, roots: list[str]
) -> None:
    with pytest.raises(UserError, match=words) as message:
        open_mixture(roots, DataConfig(**settings))  # type: ignore[arg-type]
    assert "\n" not in str(message.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nobody_00000000", "has no sample 'nobody_00000000'"),
        ("3/a_00000000", "names an unknown clone; there are 2 clones"),
        ("#", "is empty"),
    ],
)
def test_mixture__an_unknown_key_is_reported(line: str, words: str, roots: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(line + "\n")
    with pytest.raises(UserError, match=words):
        open_mixture(roots, DataConfig(exclude=str(tmp_path / "list.txt")))


def test_mixture__an_unreachable_clone_is_reported_and_not_trained_on_whole(
    roots: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text(open_clone(roots[1]).key(0) + "\n")
    real = Clone.find

    def find(self: Clone, key: str) -> int:
        if self.root == roots[0]:
            raise UnreachableError("the network is down")
        return real(self, key)

    monkeypatch.setattr(Clone, "find", find)
    with pytest.raises(UnreachableError):
        open_mixture(roots, DataConfig(exclude=str(tmp_path / "list.txt")))


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("nsfw", "'nsfw' is not a condition"),
        ("nfsw == 1", "unknown field; did you mean nsfw"),
        ("nsfw == yes", "'yes' in condition 'nsfw == yes' is not of type int"),
        ("nsfw ~ yes", "looks for words in a number; compare nsfw by ==, != or <"),
    ],
)
def test_mixture__a_wrong_condition_is_reported(condition: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        DataConfig(where=(condition,))


LENGTHS = [(7, 5, 7, 7, 3), (10, 10, 4), (6,) * 9]


@pytest.mark.parametrize(("batch_size", "num_canonical_nodes"), [(12, 1), (12, 2), (20, 4)])
def test_weighted_order__shares_per_batch_and_epochs_per_clone_are_fixed(
    batch_size: int, num_canonical_nodes: int
) -> None:
    plain = Order(tuple(itertools.chain(*LENGTHS)), batch_size, block_size=2, num_canonical_nodes=num_canonical_nodes)
    order = weighted_order(LENGTHS, (2.0, 1.0, 1.0), plain)
    shares = [each.global_batch_size for each in order.orders]
    assert sum(shares) == batch_size == order.global_batch_size and shares[0] == max(shares)
    starts = [0, *itertools.accumulate(sum(each) for each in LENGTHS)]
    seen: list[Counter[tuple[int, int]]] = [Counter() for _ in LENGTHS]
    for step in range(3 * order.batches_per_epoch):
        batch = order.global_batch(step)
        for number, sample in ((n, p) for p in batch for n in range(3) if starts[n] <= p[0] < starts[n + 1]):
            seen[number][sample] += 1
        counts = [sum(starts[n] <= sample[0] < starts[n + 1] for sample in batch) for n in range(3)]
        assert counts == shares
    assert all(set(counter.values()) == {1} for counter in seen)  # each sample once in each epoch of its clone
    assert len({number % 7 for number, _ in order.global_batch(0)}) > 1


def test_weighted_order__every_rank_gets_samples_of_each_clone() -> None:
    order = weighted_order([(60,), (60,)], (3, 1), Order((60, 60), 16))
    for rank in range(4):
        slice_ = rank_slice(order.global_batch(2), rank, 4)
        assert sum(number < 60 for number, _ in slice_) == 3


def test_weighted_order__equal_clones_are_shuffled_differently() -> None:
    order = weighted_order([(50,), (50,)], (1, 1), Order((50, 50), 10))
    batch = [number for number, _ in order.global_batch(0)]
    assert [n - 50 for n in batch if n >= 50] != [n for n in batch if n < 50]


def test_weighted_order__shards_ahead_include_all_clones() -> None:
    order = weighted_order([(10,) * 6, (10,) * 3], (1, 1), Order((10,) * 9, 10, block_size=2))
    assert isinstance(order, WeightedOrder)
    ahead = list(order.shards_ahead(0, 0, order.batches_per_epoch))
    needed = {number // 10 for step in range(order.batches_per_epoch) for number, _ in order.global_batch(step)}
    assert needed <= set(ahead) <= set(range(9))
    first = {number // 10 for number, _ in order.global_batch(0)}
    assert first <= set(ahead[: order.shards_at_once])


def test_weighted_order__an_empty_share_is_reported() -> None:
    with pytest.raises(UserError, match="give clone 2 no sample in a batch of 10"):
        weighted_order([(50,), (50,)], (100, 1), Order((50, 50), 10))


def test_mixture__shards_belong_to_their_clones(roots: list[str]) -> None:
    mixture = open_mixture(roots, DataConfig())
    clone, entry = mixture.shard(len(mixture.clones[0].manifest.shards))
    assert isinstance(clone, Clone) and clone is mixture.clones[1] and entry == clone.manifest.shards[0]
