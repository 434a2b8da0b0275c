"""What can go wrong without a mistake in the program."""


class UserError(ValueError):
    """Something was asked for that cannot be; the message says what to do instead."""


class RunError(RuntimeError):
    """A run ended early through no fault of its input; the message says why, and how to go on."""


def first_line(error: BaseException) -> str:
    """What an error says, on a line: its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
