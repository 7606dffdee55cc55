"""Crops by an index, decoded on a GPU by the kernels of `fixres.pipelines.roc.gpu`."""
