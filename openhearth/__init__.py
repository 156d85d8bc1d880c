"""OpenHearth: the open foundry for language models. A budget goes in; a model that anyone can use, check and rebuild comes out."""

__version__ = "0.1.0"
