"""The operator's screens: a process of its own beside the core."""
