"""What the machine trains on: its GPUs, and the energy that they count."""
