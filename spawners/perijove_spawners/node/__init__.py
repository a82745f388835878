"""The node agent: from an order to an ended job."""
