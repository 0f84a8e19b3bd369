"""Devices made of software that speak the real protocols; seeded."""
