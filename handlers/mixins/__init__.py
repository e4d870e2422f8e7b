"""Handler mixins, one axis each: they say when things happen; the components say how."""
