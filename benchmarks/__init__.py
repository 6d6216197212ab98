"""What the worker costs, beside the floor and its peers' way of doing the same thing."""
