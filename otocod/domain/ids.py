"""Names for the identifiers that cross module borders; none of them is ever parsed."""

from typing import NewType

BracketId = NewType("BracketId", str)
# Ours, a UUID, committed before it is sent; the broker echoes it and never de-duplicates on it.
ExternalIdentifier = NewType("ExternalIdentifier", str)
# The broker's. A number on the wire, compared as text: the schema and the wire disagree on its type.
BrokerOrderId = NewType("BrokerOrderId", str)
ComplexOrderId = NewType("ComplexOrderId", str)
FillId = NewType("FillId", str)
RequestId = NewType("RequestId", int)
AccountNumber = NewType("AccountNumber", str)
