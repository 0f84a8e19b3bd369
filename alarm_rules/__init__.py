"""The pure rule core: arrays in, arrays out. No I/O, no clock."""
