"""Tables: published numbers next to measured ones, as texts and as one page."""
