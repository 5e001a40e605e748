"""What this customer wants next: candidates over the whole catalog, reasons, and how well they are ranked."""
