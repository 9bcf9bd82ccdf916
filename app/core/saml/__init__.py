"""SAML 2.0 as a service provider speaks it: messages in and out, with no thought of users, rows or requests over HTTP.

Sources: SAML Core, Bindings, Profiles and Metadata (OASIS, 2005) with the errata of 2012, XML-DSig and XML-Enc 1.1, and
OWASP's page on SAML. The modules here need the extra `saml` (lxml, signxml), and are imported when a message is to be
read or written, so that nobody waits for them who signs in by other ways.
"""

from importlib.util import find_spec


def is_installed() -> bool:
    """Whether the extra is there."""
    return all(find_spec(name) is not None for name in ("lxml", "signxml"))
