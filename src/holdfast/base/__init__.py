"""The ground floor: errors, identifiers, units, the clock, configuration.

Must not import any other floor, nor anything outside the standard library: every other
module stands on this one.
"""
