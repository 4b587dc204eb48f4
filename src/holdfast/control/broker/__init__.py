"""The broker: which queued jobs may begin now, and what the others wait for.

The front door. Must not know what jobs do, nor where they are kept: no database, no clock.
"""

from holdfast.control.broker.broker import AGEING, Broker
from holdfast.control.broker.needs import Kind, Need, Request, Resource
from holdfast.control.broker.words import Wait

__all__ = ["AGEING", "Broker", "Kind", "Need", "Request", "Resource", "Wait"]
