"""Models of what crosses a border, and the values that the parts of the engine exchange."""
