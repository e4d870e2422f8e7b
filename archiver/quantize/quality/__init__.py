"""How much two models differ, measured."""
