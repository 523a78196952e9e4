"""The one exception that means: the user can fix this."""


class UserError(ValueError):
    """A mistake of the user's. The message is one line that names what is wrong and how to mend it.

    The command line prints the line alone and exits with status 2; any other exception keeps its traceback.
    """
