"""Reads an interval of the timesteps, START:STOP as shares of their number."""

from builders.errors import UserError

WHOLE = "0:1"


def parse_interval(text: str) -> tuple[float, float]:
    """Returns start and stop of an interval such as "0.2:0.8".

    Raises:
        UserError: the text is no interval with 0 <= START < STOP <= 1.
    """
    start, colon, stop = text.partition(":")
    try:
        found = float(start), float(stop)
    except ValueError:
        found = -1.0, -1.0
    if not colon or not 0 <= found[0] < found[1] <= 1:
        raise UserError(
            f"guidance_interval is '{text}', but must be START:STOP with 0 <= START < STOP <= 1, such as 0.2:0.8"
        )
    return found


def written(text: str) -> str:
    """The one spelling of an interval, so that two spellings are one recipe: "0.20:1.0" is "0.2:1"."""
    return "{:g}:{:g}".format(*parse_interval(text))
