"""Real servers for tests, and proxies that break the way to them.

Every server runs on a free port of 127.0.0.1 with files of its own, and ends with the tests,
also when they are killed: each has a guard (:mod:`.guard`) that stops it and deletes its files.
"""
