"""The one exception meant for a user: its message is printed as a sentence, no traceback."""


class InputError(ValueError):
    """A mistake in what the user gave: the message names the file or key and the remedy."""
