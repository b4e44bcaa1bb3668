"""Steps that were skipped, kept with their state (`skipped_steps`), and any step of a run taken again (`replay`)."""
