"""What the core offers to the outside: wire types, the local link, the JSON routes."""
