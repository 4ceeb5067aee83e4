"""Who a caller is: proved by a join token or by a current certificate, never said."""
