"""robustgate: a pytest gate for the robustness of compressed vision models."""

__version__ = "0.1.0"
