"""Exact frames out of compressed video.

`protocol` is the contract, `backends` has the decoders by name, `sources` opens whatever a manifest names, and
`isolation.isolated` does so in a separate process, as all of training and testing does.
"""
