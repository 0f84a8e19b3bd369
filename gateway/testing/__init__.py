"""Contract checks and fakes: shipped for plugin authors, never imported at run time."""
