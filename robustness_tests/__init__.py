"""The shipped suite: ``pytest --pyargs robustness_tests --robustgate-config robustgate.toml``."""
