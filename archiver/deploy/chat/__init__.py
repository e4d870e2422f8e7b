"""A chat in the terminal: what is said, how it is asked for, and how it looks, each in its own module."""
