"""The network's layers as a few fused kernels in Triton: fewer passes over maps than one operation after the other.

`form.as_fused` makes a network run so; `ops` are the operations, `kernels` the only module that needs Triton.
"""
