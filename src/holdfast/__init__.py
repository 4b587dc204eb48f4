"""Holdfast: policy-driven backup and recovery for a whole site.

The package is a house of floors, top to bottom: ``faces``, ``site``, ``control`` beside
``movers``, ``wire``, ``vault`` beside ``sources``, ``engine``, ``base``. A floor imports only
floors below it, siblings never each other; ``lint-imports`` enforces it.
"""

__version__ = "0.1.0"
