"""What commands print of artifacts, measurements, predictions and lints; the viewer Netron."""
