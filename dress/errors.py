"""The one exception whose message is meant for a user: printed as a sentence, without a traceback."""


class InputError(ValueError):
    """A mistake in what the user gave: the message names the file or key and the remedy."""
