"""See ARCHITECTURE.md for the place of this package on the road."""
