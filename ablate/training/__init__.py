"""The training engine, the only home of torch.

It knows recipes, and nothing of studies, stores, MLflow or executors.
"""
