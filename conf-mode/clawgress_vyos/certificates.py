"""The API's certificate: from `pki` in the configuration to files for the daemon."""

import hashlib
import os
from textwrap import wrap

from .system import remove, write

# Characters in a line of a certificate's text (RFC 7468 section 2).
PEM_WIDTH = 64
PREFIX = "api-"


def mistakes(service, pki):
    """What is wrong with the certificate that is named: words of the command line, message."""
    tls = service.get("api", {}).get("tls", {})
    name = tls.get("certificate")
    if name is None:
        return
    found = pki.get("certificate", {}).get(name, {})
    private = found.get("private", {})
    where = f"api tls certificate {name}"
    if "certificate" not in found:
        yield where, "there is no pki certificate of that name"
    elif "key" not in private:
        yield where, "the pki certificate has no private key"
    elif "password-protected" in private:
        yield where, "the private key is protected by a password; the daemon cannot ask for it"
    for authority in tls.get("ca-certificate", []):
        if "certificate" not in pki.get("ca", {}).get(authority, {}):
            yield f"api tls ca-certificate {authority}", "there is no pki ca of that name"


def write_files(service, pki, directory):
    """Paths of certificate and key, named by their content: another certificate is another file. None without TLS."""
    tls = service.get("api", {}).get("tls", {})
    if "certificate" not in tls:
        return None
    found = pki["certificate"][tls["certificate"]]
    chain = [found, *(pki["ca"][name] for name in tls.get("ca-certificate", []))]
    certificate = "".join(pem("CERTIFICATE", entry["certificate"]) for entry in chain)
    key = pem("PRIVATE KEY", found["private"]["key"])
    digest = hashlib.sha256((certificate + key).encode()).hexdigest()[:16]
    paths = tuple(os.path.join(directory, f"{PREFIX}{digest}.{end}") for end in ("crt", "key"))
    for path, text in zip(paths, (certificate, key)):
        write(path, text)
    return paths


def pem(kind, base64):
    """The configuration holds what stands between the first and the last line, as one."""
    lines = "\n".join(wrap(base64, PEM_WIDTH))
    return f"-----BEGIN {kind}-----\n{lines}\n-----END {kind}-----\n"


def forget(directory, settings):
    """Removes the files that the settings do not name any more."""
    for entry in os.scandir(directory) if os.path.isdir(directory) else ():
        if entry.name.startswith(PREFIX) and entry.path not in settings:
            remove(entry.path)
