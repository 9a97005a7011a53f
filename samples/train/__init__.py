"""Scripts that made the samples: ``python -m samples.train.NAME`` (needs the extra ``[train]``).

Each trains one model on public data that a PyPI package ships, exports it with the stock PyTorch
exporter, checks the file against torch in onnxruntime and writes the sample's folder. Hyperparameters
were chosen without the test set; there is no early stopping, and the test set is read once, at the end.
Seeds are fixed: the same versions of the packages on the same kind of machine make the same files.
"""
