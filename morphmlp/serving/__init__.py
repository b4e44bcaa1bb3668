"""A trained network behind HTTP: files that come from outside, and a page to drop them on."""
