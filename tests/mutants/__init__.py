"""Deliberate breaks of the protocol and its adapters, each of which a named test has to notice."""
