"""What the HTTP servers of the library share: bodies, refusals, hosts, replies, start and stop."""
