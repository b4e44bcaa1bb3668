"""What a run keeps of itself, in its folder.

`run_folder.RunFolder` names the files and locks the run; `reporter.Reporter` gathers what a worker reports, which is a
`report.Report`; `run_events` are restarts and resizes; `ledger` the videos of every step; `accounting` says where the
time went, and what held it up.
"""
