"""Files and other programs of the router."""

import os
import subprocess

# What a shell says of a program that is not there.
NOT_FOUND = 127


def run(*words):
    """Another program, as subprocess tells of it; one that is not there fails like any other."""
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        return subprocess.CompletedProcess(words, NOT_FOUND, "", f"{words[0]}: {error.strerror}")


def systemctl(*words):
    return run("systemctl", *words)


def read(path):
    """The text of a file, or None where there is no file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path, text):
    """A file that only root reads, because keys may stand in it: whole, or as it was."""
    descriptor = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.part", path)


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
