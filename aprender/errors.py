"""Errors that a person can act on. Commands print them as one sentence; they never show a traceback."""


class AprenderError(Exception):
    """Something outside the program is wrong: the message says what, where, and what to do."""


class FormatError(AprenderError):
    """A model file or folder can't be used: missing, corrupt, incomplete or of an unsupported kind."""
