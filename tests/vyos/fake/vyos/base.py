"""Messages. The router wraps what an error says at 72 characters, through names and all."""

from textwrap import fill

WIDTH = 72


class ConfigError(Exception):
    def __init__(self, message):
        super().__init__(fill(message, width=WIDTH))


class Warning:
    def __init__(self, message, **wrapping):
        print(f"\n{fill(message, initial_indent='WARNING: ', **wrapping)}\n")
