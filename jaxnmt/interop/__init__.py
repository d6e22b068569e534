"""Models go out to other software and come in from it, see docs/models.md."""
