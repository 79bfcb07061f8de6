-- A database of its own for Optuna: its tables and MLflow's have names in common.
CREATE DATABASE optuna;
