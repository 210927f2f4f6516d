"""What a user can mend, said in one line."""


class UserError(Exception):
    """The message says what is wrong, where, and what to do."""
