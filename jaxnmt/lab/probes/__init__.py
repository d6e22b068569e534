"""Measurements of models, one a module, that put the classic claims about them to the test: each a chart and its numbers."""
