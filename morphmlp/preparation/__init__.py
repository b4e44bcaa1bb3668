"""Work on whole data sets over the cluster: checking, copying, packing; resumable, with progress."""
