"""From annotations, in the forms in which data sets are passed on, to manifests. Opens no video."""
