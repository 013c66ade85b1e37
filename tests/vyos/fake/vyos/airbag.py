"""The router's catcher of exceptions that nobody expected."""


def enable():
    pass
