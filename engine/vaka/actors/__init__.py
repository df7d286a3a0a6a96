"""The actors of the supervision tree, each in a module of its own."""
