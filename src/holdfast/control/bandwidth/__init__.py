"""How much data machines may move, by network and by time of day.

The front door. Must not move data, nor know how machines are spoken to.
"""

from holdfast.control.bandwidth.book import BandwidthBook
from holdfast.control.bandwidth.rules import BandwidthRule, rates

__all__ = ["BandwidthBook", "BandwidthRule", "rates"]
