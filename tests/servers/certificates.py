"""A certificate authority for one run of the tests."""

from __future__ import annotations

import pathlib


def write_certificates(
    folder: pathlib.Path, name: str = "127.0.0.1"
) -> tuple[tuple[pathlib.Path, pathlib.Path], pathlib.Path]:
    """A certificate chain for 127.0.0.1 with its key, and the authority to trust."""
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert(name)
    chain, key, ca_file = folder / "chain.pem", folder / "key.pem", folder / "ca.pem"
    for number, part in enumerate(leaf.cert_chain_pems):
        part.write_to_path(chain, append=number > 0)
    leaf.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca_file)
    return (chain, key), ca_file
