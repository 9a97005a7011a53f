"""Scripts that made the samples: ``python -m samples.train.NAME`` (needs the extra ``[train]``).

Each trains one model on public data that a PyPI package ships, exports it with the stock PyTorch
exporter, checks the file against torch in onnxruntime and writes the sample's folder. Hyperparameters
were chosen on part of the training set (``--validate``); the test set is read once, at the end.
"""
