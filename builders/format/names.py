"""Names of a clone's files."""

MANIFEST = "clone.json"
CARD = "README.md"
TIMM_INDEX = "_info.json"
PROMPTS = "prompts.parquet"
"""File with the prompts of a clone whose recipe takes them from a file."""
MAKING = "_making"
"""Folder of files that exist only while the clone is being made."""
RUNS = f"{MAKING}/runs"
"""Folder that each run lists before it takes a shard."""
TARGET = f"{RUNS}/target.json"
"""File with the recipe and the number of rounds that are being made."""
SHARDS_PER_FOLDER = 1000
SHARDS_PER_METADATA_FILE = 100


def shard_name(split: str, shard: int) -> str:
    """Returns the name of a shard in a finished clone, such as "data/000/train-000000.tar"."""
    return f"data/{shard // SHARDS_PER_FOLDER:03d}/{split}-{shard:06d}.tar"


def metadata_name(split: str, number: int) -> str:
    """Returns the name of the number-th metadata file. It holds 100 shards from 100 x number on, one row group each."""
    return f"metadata/{split}-{number:05d}.parquet"


def staging_folder(shard: int) -> str:
    """Returns the folder that holds a shard's files while the clone is being made."""
    return f"{MAKING}/{shard // SHARDS_PER_FOLDER:03d}"


def staging_stem(split: str, shard: int, recipe_hash: str, end_round: int) -> str:
    """Returns what the names of a shard's files begin with while the clone is being made.

    The name contains the recipe's hash, so a listing shows which shards of this recipe are made. It also contains the
    end round: the last shard of a clone may be shorter than the shard of the same number in a longer clone.
    """
    return f"{staging_folder(shard)}/{split}-{shard:06d}-{end_round}-{recipe_hash[:8]}"


def staged_prompts(name: str) -> str:
    """Returns where the prompts with the hash "sha256:…" lie while the clone is being made."""
    return f"{MAKING}/prompts-{name.removeprefix('sha256:')[:16]}"
