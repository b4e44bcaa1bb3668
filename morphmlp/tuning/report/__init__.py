"""What a sweep found, as pure functions of its result.

`ranking.ranked` orders points with intervals, `effects.effects` says what each field does, `summary.trial_table` is
the table in the terminal, `report.write_report` writes page and picture, `report.write_winners` the best experiments.
"""
