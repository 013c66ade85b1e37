"""What a session raises."""


class ConfigSessionError(Exception):
    pass
