"""Ten minutes on a machine with a GPU that prove, or disprove, what nobody has run there yet: docs/gpu.md."""
