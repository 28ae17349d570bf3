"""How long the library takes beside the bare driver doing the same work; run ``bench.report``."""
