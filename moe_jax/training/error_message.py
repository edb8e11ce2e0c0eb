"""Format errors of other libraries for messages to the user."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """Returns the message of an error in one line of at most `limit` characters."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
