"""Turns an exception of the Hub's client into a sentence for the user."""

from builders.errors import ReadableError, UnreachableError, UserError, first_line
from builders.storage.retry import is_of_the_network, is_transient


def hub_error(what: str, error: Exception, model: str, way_out: str) -> ReadableError:
    """Returns the error to raise for a failed request to the Hub: one sentence with a way out.

    The way out of a gated model is to accept its terms. A network that may work later gives an UnreachableError.
    Anything else gives a UserError with `way_out`.
    """
    chain = (error, error.__cause__, error.__context__)
    if any(kind.__name__ == "GatedRepoError" for cause in chain for kind in type(cause).__mro__):
        way_out = f"accept its terms at https://huggingface.co/{model} and log in with 'hf auth login'"
    kind = UnreachableError if is_of_the_network(error) and is_transient(error) else UserError
    return kind(f"{what} ({first_line(error)}); {way_out}")
