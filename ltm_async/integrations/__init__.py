"""The memory in frameworks: each module needs its framework, and none is imported without it."""
