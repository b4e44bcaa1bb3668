"""Generated videos, written the way that the real data sets lie on disk.

`kinetics_layout` writes the demo task and realistic videos, `something_standin` a stand-in for Something-Something.
"""
