"""Gives each class an id, from a wnid, a WordNet synset, or any name in any script.

An id is lower-case ASCII with "_" between words, and stands for a single name. If its spelling could stand for several
names (symbols, scripts other than Latin, emoji, names that are cut), six hexadecimal digits of the name's hash follow.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from anyascii import anyascii

from builders.classes.class_list import MAX_CLASS_ID
from builders.classes.wordnet import WNID, is_synset, read_synset
from builders.errors import UserError

SEPARATORS = " _-.,'’()/\t"
"""Characters between words; a name with other symbols gets a hash in its id."""


def class_id(name: str) -> str:
    """Returns the id of a class: a wnid as it is, the wnid of a synset, or the slug of any other name.

    The slug of "Ørsted" is "orsted", that of "C++" is "c_62420a".

    Raises:
        UserError: WordNet has no such synset or is not installed.
    """
    if WNID.fullmatch(name):
        return name
    return read_synset(name).wnid if is_synset(name) else slug(name)


def class_ids(names: Iterable[str]) -> dict[str, str]:
    """Returns the id of each name, in the order of the ids.

    Names that differ only in case or separators get different ids.

    Raises:
        UserError: a name occurs twice, as it is or as a synset and its wnid.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[class_id(name)].append(name)
    found: dict[str, str] = {}
    for identity, display_names in alike.items():
        spellings = {unicodedata.normalize("NFC", name) for name in display_names}
        if len(spellings) < len(display_names) or (len(display_names) > 1 and WNID.fullmatch(identity)):
            first, second, *_ = sorted(display_names)
            raise UserError(f"'{first}' and '{second}' are both class '{identity}'; rename or remove one")
        for name in display_names:
            own = identity if len(display_names) == 1 or name == identity else _with_hash(identity, name)
            if own in found:
                raise UserError(f"'{found[own]}' and '{name}' are both class '{own}'; rename or remove one")
            found[own] = name
    return {found[identity]: identity for identity in sorted(found)}


def slug(name: str) -> str:
    """Returns the id of a name that is neither a wnid nor a synset."""
    name = unicodedata.normalize("NFC", name)
    words = "_".join(re.findall("[a-z0-9]+", anyascii(name).lower()))
    is_clear = all(letter in SEPARATORS or _is_latin(letter) for letter in name)
    return words if is_clear and 0 < len(words) <= MAX_CLASS_ID else _with_hash(words, name)


def _is_latin(letter: str) -> bool:
    """Whether a character is a Latin letter, a combining mark, or an ASCII digit."""
    return letter in "0123456789" or unicodedata.combining(letter) > 0 or "LATIN" in unicodedata.name(letter, "")


def _with_hash(words: str, name: str) -> str:
    digest = hashlib.blake2b(unicodedata.normalize("NFC", name).encode(), digest_size=3).hexdigest()
    return f"{words[: MAX_CLASS_ID - 1 - len(digest)].rstrip('_') or 'class'}_{digest}"
