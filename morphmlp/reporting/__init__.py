"""Figures of runs, the contact sheet of clips, and the tables of published and measured numbers."""
