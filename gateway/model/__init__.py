"""The vocabulary: point, quality, batch, rule, alarm, errors. No I/O, no clock, no JSON."""
