"""Stands for VyOS' own Python package, as far as our scripts use it. What a router does was seen on one and is repeated
here; what is not known of routers is not here."""

from .base import ConfigError

__all__ = ["ConfigError"]
