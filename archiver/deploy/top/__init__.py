"""A live view of a server in the terminal: readings, what they say, and how that looks, each in its own module."""
