"""The parts of the codec, sans-IO: fields, frames, items, messages, subpackages. Use codec.py.

They import each other downwards in that order. Split only for size; nothing outside this adapter's
own folder imports from here.
"""
