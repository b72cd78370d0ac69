"""What spares the tests tracing one part twice."""
