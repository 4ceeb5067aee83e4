"""From configuration objects to compiled rules, and from a bag to a verdict."""
