"""Turns an exception of the Hub's client into the sentence that users read."""

from builders.errors import ReadableError, UnreachableError, UserError, first_line
from builders.storage.retry import is_of_the_network, is_transient


def hub_error(what: str, error: Exception, model: str, way_out: str) -> ReadableError:
    """The sentence for a failed look at the Hub: a model whose terms are to be accepted, a network that may work later, or a
    mistake, with its way out."""
    chain = (error, error.__cause__, error.__context__)
    if any(kind.__name__ == "GatedRepoError" for cause in chain for kind in type(cause).__mro__):
        way_out = f"accept its terms at https://huggingface.co/{model} and log in with 'hf auth login'"
    kind = UnreachableError if is_of_the_network(error) and is_transient(error) else UserError
    return kind(f"{what} ({first_line(error)}); {way_out}")
