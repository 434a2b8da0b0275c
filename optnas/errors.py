"""Mistakes that a user can mend."""


class UserError(ValueError):
    """Something was asked for that cannot be; the message says what to do instead."""
