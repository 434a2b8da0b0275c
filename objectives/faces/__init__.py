"""What face recognition needs beyond classification: its files, its pairs and its training."""
